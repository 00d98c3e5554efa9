"""Every page in docs/ that a benchmark writes, written again from the results there are, which measures nothing:

    python -m benchmarks.pages

After a change of the method this marks results that no longer hold; the pages that have changed are named.
"""

from __future__ import annotations

import importlib
import io
import re
import sys
from contextlib import redirect_stdout

from benchmarks.rows import ROOT

WRITTEN_BY = re.compile(r"^Written by `python -m benchmarks\.(\w+)( --data \S+)?`", re.MULTILINE)
MEASURING = {"coverage"}  # writes what it has just found, and keeps no results
WRITING = {"forecast"}  # does nothing else


def main() -> int:
    before = {page: page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md"))}
    for text in before.values():
        if (found := WRITTEN_BY.search(text)) is not None and found[1] not in MEASURING:
            write(found[1], (found[2] or "").split())
    for page, text in before.items():
        if page.read_text(encoding="utf-8") != text:
            print(page.relative_to(ROOT))
    return 0


def write(name: str, data: list[str]) -> None:
    """One benchmark's page. data: the option that it is called with, which it reads nothing of then."""
    sys.argv = [name, *data, *([] if name in WRITING else ["--markdown-only"])]
    with redirect_stdout(io.StringIO()):
        code = importlib.import_module(f"benchmarks.{name}").main()
    if code:
        raise SystemExit(f"benchmarks.{name} ended with {code}.")


if __name__ == "__main__":
    sys.exit(main())
