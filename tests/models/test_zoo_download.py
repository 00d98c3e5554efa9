"""A zoo's own download is the default: seen on weights from a local server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.file_server import PytorchcvServer, pytorchcv_server
from zeroq.cli import run
from zeroq.errors import ModelError
from zeroq.models import load_model
from zeroq.models.weights import weights_sha256

NAME = "resnet20_cifar10"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PytorchcvServer]:
    pytest.importorskip("pytorchcv.model_provider")
    with pytorchcv_server(tmp_path, monkeypatch) as server:
        yield server


def network(seed: int = 3) -> nn.Module:
    from pytorchcv.model_provider import get_model

    torch.manual_seed(seed)
    module: nn.Module = get_model(NAME)
    return module


def refusal() -> str:
    with pytest.raises(ModelError) as caught:
        load_model(f"pytorchcv:{NAME}")
    return str(caught.value)


def test_trained_weights_are_downloaded_by_default_and_once(
    server: PytorchcvServer, capsys: pytest.CaptureFixture[str]
) -> None:
    module = network()
    archive = server.offer(NAME, module)
    assert load_model(f"pytorchcv:{NAME}").weights_sha256 == weights_sha256(module)
    assert capsys.readouterr().out == ""  # what the zoo prints is no result
    archive.unlink()
    assert load_model(f"pytorchcv:{NAME}").weights_sha256 == weights_sha256(module)
    assert len(list((Path(os.environ["HOME"]) / ".torch" / "models").iterdir())) == 1


def test_a_file_of_weights_is_taken_in_place_of_the_download(server: PytorchcvServer, tmp_path: Path) -> None:
    module = network()
    torch.save(module.state_dict(), tmp_path / "own.pt")
    assert load_model(f"pytorchcv:{NAME}", weights=tmp_path / "own.pt").weights_sha256 == weights_sha256(module)
    assert not (Path(os.environ["HOME"]) / ".torch").exists()


def test_weights_other_than_the_zoo_expects(server: PytorchcvServer) -> None:
    server.offer(NAME, network(), sha1="0" * 40)
    assert refusal() == (
        f"The weights of pytorchcv:{NAME} could not be loaded (ValueError: Downloaded file has different hash): check "
        "the connection to the network, or give a file of them with --weights."
    )


def test_a_file_that_is_not_there(server: PytorchcvServer) -> None:
    server.offer(NAME, network()).unlink()
    message = refusal()
    assert message.startswith(f"The weights of pytorchcv:{NAME} could not be loaded (RuntimeError: Failed downloading")
    assert message.endswith("or give a file of them with --weights.")


def test_an_archive_that_was_cut_short(server: PytorchcvServer) -> None:
    archive = server.offer(NAME, network())
    archive.write_bytes(archive.read_bytes()[:1000])
    assert refusal().startswith(f"The weights of pytorchcv:{NAME} could not be loaded (BadZipFile: ")


def test_no_network_is_one_sentence_on_the_command_line(
    server: PytorchcvServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pytorchcv.models import model_store

    monkeypatch.setattr(model_store, "imgclsmob_repo_url", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr("sys.argv", ["zeroq", "quantize", f"pytorchcv:{NAME}", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == "" and "Traceback" not in shown.err
    assert "could not be loaded (ConnectionError: " in shown.err.replace("\n", " ")
    assert not (tmp_path / "run").exists()
