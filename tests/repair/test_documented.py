"""What docs/extending.md shows does run."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from tests.networks import NETWORKS, example_of

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def test_repairs_run_as_the_page_shows_them() -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = text[text.index("    from zeroq.graph import capture") : text.index("`benchmarks/dfq.py` goes on")]
    names: dict[str, Any] = {"module": NETWORKS["depthwise"](), "example": example_of("depthwise")}
    exec(textwrap.dedent(shown), names)
    weights = names["weights"]
    assert {weight.rounding for weight in weights.values()} == {"squant"}
    assert any(weight.bias is not None for weight in weights.values())
