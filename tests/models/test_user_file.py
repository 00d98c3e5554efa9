"""FILE.py:FUNCTION, and what can be wrong with a file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from zeroq.errors import ModelError
from zeroq.models import load_model
from zeroq.preprocessing import Preprocessing

Write = Callable[..., Path]

HEAD = "from torch import nn\n"


def refusal(model: str) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(model)
    return str(caught.value)


def test_a_file_gives_network_preprocessing_and_name(small: str) -> None:
    loaded = load_model(small)
    assert (loaded.name, loaded.source, loaded.input_shape) == ("small", "net.py:small", (3, 6, 5))
    assert loaded.preprocessing == Preprocessing((6, 5), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), "RGB")
    assert loaded.task is None and loaded.input_statistic is None and loaded.warnings == ()
    assert not loaded.module.training and not any(p.requires_grad for p in loaded.module.parameters())


def test_task_is_carried(write: Write) -> None:
    write("net.py", f"{HEAD}TASK = 'segmentation'\nPREPROCESS = dict(size=(4, 4), mean=[0], std=[1], channels='L')\n")
    with open("net.py", "a") as file:
        file.write("class Network(nn.Conv2d):\n    def __init__(self):\n        super().__init__(1, 2, 3)\n")
    assert load_model("net.py:Network").task == "segmentation"


def test_what_the_file_prints_does_not_reach_standard_output(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write("net.py", f"{HEAD}print('hello')\ndef net():\n    print('there')\n    return nn.Conv2d(3, 2, 1)\n")
    load_model("net.py:net", input_shape=(3, 2, 2))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\nthere\n")


def test_files_beside_it_are_found_and_not_mistaken_for_those_of_another_folder(write: Write) -> None:
    path = list(sys.path)
    for folder, channels in (("a", 2), ("b", 3)):
        Path(folder).mkdir()
        write(f"{folder}/widths.py", f"CHANNELS = {channels}\n")
        write(
            f"{folder}/net.py", f"{HEAD}from widths import CHANNELS\ndef net():\n    return nn.Conv2d(1, CHANNELS, 1)\n"
        )
        module = load_model(f"{folder}/net.py:net", input_shape=(1, 2, 2)).module
        assert module(torch.zeros(1, 1, 2, 2)).shape[1] == channels
    assert "widths" not in sys.modules and sys.path == path


def test_a_compiled_network_is_taken_as_it_was(write: Write) -> None:
    write("net.py", f"import torch\n{HEAD}def net():\n    return torch.compile(nn.DataParallel(nn.Conv2d(3, 2, 1)))\n")
    assert list(load_model("net.py:net", input_shape=(3, 2, 2)).module.state_dict()) == ["weight", "bias"]


def test_weights_go_into_the_network_and_not_into_what_holds_it(write: Write) -> None:
    write("net.py", f"{HEAD}def net():\n    return nn.DataParallel(nn.Conv2d(3, 2, 1))\n")
    torch.save({"weight": torch.ones(2, 3, 1, 1), "bias": torch.zeros(2)}, "weights.pt")
    loaded = load_model("net.py:net", weights=Path("weights.pt"), input_shape=(3, 2, 2))
    assert torch.equal(loaded.module.state_dict()["weight"], torch.ones(2, 3, 1, 1))


def test_a_network_without_values_is_refused(write: Write) -> None:
    write("net.py", f"{HEAD}def net():\n    return nn.Conv2d(3, 2, 1, device='meta')\n")
    assert refusal("net.py:net") == (
        "2 of the tensors of net have no values, weight first: it was built on the meta device; build it on the CPU "
        "and load its weights."
    )


def test_dataclasses_and_parallel_networks(write: Write) -> None:
    write(
        "net.py",
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom torch import nn\n"
        "@dataclass\nclass Widths:\n    outputs: int = 2\n"
        "def net():\n    return nn.DataParallel(nn.Conv2d(3, Widths().outputs, 1))\n",
    )
    assert list(load_model("net.py:net", input_shape=(3, 2, 2)).module.state_dict()) == ["weight", "bias"]


def test_other_types_become_32_bit_floats_with_a_warning(write: Write) -> None:
    write("net.py", f"{HEAD}def net():\n    return nn.Conv2d(3, 2, 1).half()\n")
    loaded = load_model("net.py:net", input_shape=(3, 2, 2))
    assert loaded.module.state_dict()["weight"].dtype == torch.float32
    assert loaded.warnings[0] == "Weights of net in float16 were turned into float32."


def test_no_file(write: Write) -> None:
    assert refusal("none.py:net") == "There is no file none.py: check the path of MODEL."


def test_no_function_named(write: Write) -> None:
    write("net.py", "def one(): ...\nclass Two: ...\n")
    assert refusal("net.py") == (
        "net.py needs the name of the function that returns the network: net.py:FUNCTION (it defines one, Two)."
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def resnet(): ...\ndef other(): ...\n", "net.py has no function 'resnat': it has resnet."),
        ("def one(): ...\ndef two(): ...\n", "net.py has no function 'resnat': it has one, two."),
        ("", "net.py has no function 'resnat': it defines none."),
    ],
)
def test_no_such_function(write: Write, text: str, message: str) -> None:
    write("net.py", text)
    assert refusal("net.py:resnat") == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n1 / 0\n", "net.py fails at line 2, running the file (ZeroDivisionError: division by zero)"),
        ("x = 1\ndef net(:\n", "net.py fails at line 2, running the file (SyntaxError: invalid syntax"),
        ("import none_such\n", "net.py fails at line 1, running the file (ModuleNotFoundError: No module named"),
        ("import sys\nsys.exit(3)\n", "net.py fails at line 2, running the file (SystemExit: 3)"),
        (
            "def inner():\n    raise ValueError('no weights here. Sorry.')\n\ndef net():\n    return inner()\n",
            "net.py fails at line 2, running net() (ValueError: no weights here)",
        ),
        (
            "import torch\ndef net():\n    return torch.nn.Linear(2, 'two')\n",
            "net.py fails at line 3, running net() (TypeError: ",
        ),
    ],
)
def test_a_file_that_fails_is_named_with_its_line(write: Write, text: str, message: str) -> None:
    write("net.py", text)
    refused = refusal("net.py:net")
    assert refused.startswith(message) and refused.endswith("): correct it there.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "def net(width, *rest, depth, classes=10): ...\n",
            "net in net.py needs arguments (width, depth): give them default values, or name a function that needs "
            "none.",
        ),
        ("def net(): ...\n", "net in net.py returns a NoneType, not a torch.nn.Module: return the network."),
        ("def net(): return [1]\n", "net in net.py returns a list, not a torch.nn.Module: return the network."),
        (
            "from torch import nn\nnet = nn.Linear(1, 1)\n",
            "'net' in net.py is a network, not a function: write a function of no arguments that returns it.",
        ),
        ("net = 3\n", "'net' in net.py is a int: name a function that returns the network."),
        (
            "import torch, warnings\nwarnings.simplefilter('ignore')\n"
            "def net(): return torch.jit.script(torch.nn.Linear(1, 1))\n",
            "net in net.py returns a TorchScript program, whose layers cannot be replaced: return the torch.nn.Module "
            "that it was made from.",
        ),
        (
            "from torch import nn\ndef net(): return nn.Linear(1, 1)\nTASK = 'classify'\n",
            "TASK in net.py is 'classify': write one of classification, segmentation, detection, regression.",
        ),
        (
            "from torch import nn\ndef net(): return nn.Linear(1, 1)\nPREPROCESS = (1, 2)\n",
            "PREPROCESS in net.py is a tuple: write dict(size=..., mean=..., std=...).",
        ),
        (
            "from torch import nn\ndef net(): return nn.Linear(1, 1)\nPREPROCESS = dict(mean=[0], std=[1], crop=3)\n",
            "PREPROCESS in net.py: Preprocessing does not know crop: its keys are size, mean, std, channels, resize, "
            "interpolation.",
        ),
    ],
)
def test_what_a_function_may_be_and_return(write: Write, text: str, message: str) -> None:
    write("net.py", text)
    assert refusal("net.py:net") == message


def test_a_failed_file_can_be_corrected_and_loaded_again(write: Write, small: str) -> None:
    text = Path("net.py").read_text()
    write("net.py", "1 / 0\n")
    refusal(small)
    write("net.py", text + "# corrected\n")
    assert load_model(small).name == "small"


def test_a_real_file(shared_data: Path) -> None:
    loaded = load_model(f"{shared_data / 'networks' / 'resnet20_cifar10.py'}:resnet20_cifar10")
    assert (loaded.name, loaded.input_shape, loaded.warnings) == ("resnet20_cifar10", (3, 32, 32), ())
    assert sum(p.numel() for p in loaded.module.parameters()) == 269_722
