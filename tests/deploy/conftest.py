"""The exporter reads its operators' sources anew for every file: for tests, once is enough and twice as fast."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
from onnxscript._framework_apis import torch_2_5


@pytest.fixture(scope="session", autouse=True)
def operators_read_once() -> Iterator[None]:
    """Keep the exporter's table of operators between files."""
    read = torch_2_5.get_torchlib_ops
    torch_2_5.get_torchlib_ops = functools.cache(read)
    yield
    torch_2_5.get_torchlib_ops = read
