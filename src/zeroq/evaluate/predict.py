"""An ONNX file as a function from inputs to outputs, and what its metadata say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroq.errors import DataError, ModelError, OptionError
from zeroq.preprocessing import Preprocessing

FLOATING_POINT = ("tensor(float)", "tensor(double)", "tensor(float16)", "tensor(bfloat16)")


@dataclass(frozen=True)
class OnnxPredictor:
    """A file of one input [N, C, H, W] in onnxruntime on the CPU; call it with inputs float32 [n, C, H, W].

    input_shape, output_shape: with the batch first, as the file declares them, of several outputs the first of
    floating point; an axis that it leaves open is a name or None.
    """

    path: Path
    session: Any
    input_shape: tuple[int | str | None, ...]
    output_shape: tuple[int | str | None, ...]

    def __call__(self, inputs: Tensor) -> Any:
        """The output; a tuple where the file has several.

        Raises DataError for inputs that do not fit, ModelError where the file cannot be run.
        """
        self._check(tuple(inputs.shape))
        name = self.session.get_inputs()[0].name
        try:
            outputs = [torch.from_numpy(value) for value in self.session.run(None, {name: inputs.numpy()})]
        except Exception as error:  # onnxruntime's errors share no other base
            raise ModelError(f"onnxruntime cannot run {self.path} ({_first_line(error)}).") from error
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _check(self, shape: tuple[int, ...]) -> None:
        def fits(declared: int | str | None, given: int) -> bool:
            return not isinstance(declared, int) or declared == given

        if len(shape) != 4 or not all(map(fits, self.input_shape[1:], shape[1:])):
            raise DataError(
                f"{self.path} takes inputs {_shape(self.input_shape)} and was given {_shape(shape)}: its preprocessing "
                "must have the size and channels that it takes."
            )
        if not fits(self.input_shape[0], shape[0]):
            raise DataError(
                f"{self.path} takes exactly {self.input_shape[0]} image(s) at a time and was given {shape[0]}: "
                f"give --batch {self.input_shape[0]}, or export it with a dynamic batch."
            )


def onnx_predictor(path: Path, threads: int | None = None, optimised: bool = True) -> OnnxPredictor:
    """Load a file; `threads` None takes all cores; unoptimised, every node runs as it stands. Raises ModelError."""
    import onnxruntime

    if not path.is_file():
        raise ModelError(f"{path} is not there: give an ONNX file.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3  # errors; warnings would stand between the progress bars
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no other base
        raise ModelError(
            f"onnxruntime {onnxruntime.__version__} cannot load {path} ({_first_line(error)}): the file is damaged, or "
            "needs another version."
        ) from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
        declared = ", ".join(f"{value.name} {value.type} {_shape(value.shape)}" for value in inputs)
        raise ModelError(f"{path} takes {declared or 'nothing'}: one float32 input [N, C, H, W] is needed.")
    output = next((each for each in outputs if each.type in FLOATING_POINT), outputs[0])
    if output.type != FLOATING_POINT[0]:
        raise ModelError(f"{path} gives {output.name} {output.type}: a float32 output is needed.")
    return OnnxPredictor(path, session, tuple(inputs[0].shape), tuple(output.shape))


def metadata_of(path: Path) -> dict[str, str]:
    """`metadata_props` of an ONNX file: version, task, preprocess, seed, bits in ours. Raises ModelError."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (OSError, DecodeError) as error:
        raise ModelError(f"{path} cannot be read as an ONNX file ({_first_line(error)}): give another.") from error
    return {entry.key: entry.value for entry in model.metadata_props}


def preprocessing_of(path: Path) -> Preprocessing | None:
    """The preprocessing that an ONNX file carries, None where it carries none. Raises ModelError."""
    text = metadata_of(path).get("preprocess")
    if text is None:
        return None
    try:
        return Preprocessing.from_dict(json.loads(text))
    except (ValueError, AttributeError, TypeError, OptionError) as error:
        raise ModelError(f"The preprocessing in {path} cannot be understood ({error}): give --preprocess.") from error


def _shape(sides: Any) -> str:
    return f"[{', '.join('N' if side is None else str(side) for side in sides)}]"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
