"""The lines of Python that run a quantized file on one picture, with the preprocessing of its run."""

from __future__ import annotations

from zeroq.preprocessing import Preprocessing

OPENING = ["import numpy as np", "import onnxruntime"]
MODES = {"L": '"L"', "RGB": '"RGB"', "BGR": '"RGB"'}
ORDERS = {"L": "[..., None]", "BGR": "[..., ::-1]"}  # from what Pillow gives to [H, W, C] as the network takes it

LINES_FOR_ARRAYS = "\n".join([  # of a network that takes other than one picture: input.npy, or input0.npy and so on
    *OPENING,
    "",
    'session = onnxruntime.InferenceSession("model.onnx")',
    'inputs = {each.name: np.load(f"{each.name}.npy") for each in session.get_inputs()}',
    "for output, values in zip(session.get_outputs(), session.run(None, inputs)):",
    "    print(output.name, values.shape)",
])  # fmt: skip


def lines_to_run(preprocessing: Preprocessing, task: str | None) -> str:
    """A script that reads picture.jpg beside model.onnx and prints what the network says of it."""
    if preprocessing.channels is None:
        opening, read = OPENING, []
        pixels = 'np.load("pictures.npz")["images"][0]'
    else:
        opening, read = [*OPENING, "from PIL import Image"], read_picture(preprocessing, MODES[preprocessing.channels])
        pixels = f"np.asarray(picture){ORDERS.get(preprocessing.channels, '')}"
    shown = ".argmax()" if task == "classification" else ".shape"
    lines = [
        *opening,
        "",
        *read,
        f"pixels = ({pixels} / 255 - {list(preprocessing.mean)}) / {list(preprocessing.std)}",
        "inputs = pixels.transpose(2, 0, 1)[None].astype(np.float32)",
        'session = onnxruntime.InferenceSession("model.onnx")',
        f"print(session.run(None, {{session.get_inputs()[0].name: inputs}})[0]{shown})",
    ]
    return "\n".join(lines)


def read_picture(preprocessing: Preprocessing, mode: str) -> list[str]:
    """From a file to `picture` of the network's size, rounding as `zeroq.preprocessing` does."""
    (height, width), method = preprocessing.size, f"Image.{preprocessing.interpolation.upper()}"
    opened = f'picture = Image.open("picture.jpg").convert({mode})'
    if preprocessing.resize == "stretch":
        return [opened, f"picture = picture.resize(({width}, {height}), {method})"]
    if preprocessing.resize == "letterbox":
        return [
            opened,
            f"fit = min({width} / picture.width, {height} / picture.height)",
            f"inner = picture.resize([max(1, int(side * fit + 0.5)) for side in picture.size], {method})",
            f"picture = Image.new({mode}, ({width}, {height}))",
            f"picture.paste(inner, (({width} - inner.width) // 2, ({height} - inner.height) // 2))",
        ]
    if isinstance(preprocessing.resize, int) or height == width:
        side = preprocessing.resize or height
        size = [f"size = [side * {side} // min(picture.size) for side in picture.size]"]
    else:
        size = ["w, h = picture.size", f"size = [max({width}, w * {height} // h), max({height}, h * {width} // w)]"]
    return [
        opened,
        *size,
        f"left, top = round((size[0] - {width}) / 2), round((size[1] - {height}) / 2)",
        f"picture = picture.resize(size, {method}).crop((left, top, left + {width}, top + {height}))",
    ]
