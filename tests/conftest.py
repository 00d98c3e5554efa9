"""What every test may rely on: fixed seeds, one thread, and the measuring data where they are."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

# A shell that runs the suite in the background has SIGINT ignored, and programs that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def same_numbers_every_time() -> None:
    """Seeds of every generator, and one thread: sums run in one order, and parallel tests do not compete."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real networks and pictures (ZEROQ_DATA, or ../shared/data beside the repository), else a skip."""
    folder = Path(os.environ.get("ZEROQ_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the measuring data are not at {folder}: set ZEROQ_DATA")
    return folder
