"""The pages in docs/ are what their benchmarks write of the results there are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.rows import ROOT


def test_pages_are_those_of_the_results(tmp_path: Path) -> None:
    """In a copy, as other tests read the pages. A result that no longer holds is marked in them."""
    for name in ("benchmarks", "docs", "src", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns(".cache", "__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pages"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "src"), str(tmp_path)])},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "", "write them again with python -m benchmarks.pages"
