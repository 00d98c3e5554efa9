"""A local file server that stands in for the addresses that zoos download their weights from."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address, on the loopback interface, at which the folder's files can be had."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class PytorchcvServer:
    """What pytorchcv's address holds: archives of weights, each known to the package by its SHA-1."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, monkeypatch

    def offer(self, name: str, module: nn.Module, *, sha1: str | None = None) -> Path:
        """Archive a network's weights as pytorchcv does; sha1: what the package expects in place of the truth."""
        from pytorchcv.models import model_store

        saved = self.folder / "weights.pth"
        torch.save(module.state_dict(), saved)
        checksum = sha1 or hashlib.sha1(saved.read_bytes()).hexdigest()
        error, _, tag, *rest = model_store._model_sha1[name]
        self.patch.setitem(model_store._model_sha1, name, (error, checksum, tag, *rest))
        file = f"{name}-{error}-{checksum[:8]}.pth"
        archive = self.folder / "releases" / "download" / tag / f"{file}.zip"
        archive.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(archive, "w") as content:
            content.write(saved, file)
        return archive


@contextmanager
def pytorchcv_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PytorchcvServer]:
    """Within it pytorchcv downloads from the folder, into a home of its own."""
    from pytorchcv.models import model_store

    files, home = folder / "server", folder / "home"
    files.mkdir()
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(files) as address:
        monkeypatch.setattr(model_store, "imgclsmob_repo_url", address)
        yield PytorchcvServer(files, monkeypatch)
