"""Made-up records of runs, shaped like real ones: what a report has to be able to show."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroq.options import Options
from zeroq.report import RunRecord

WIDTHS = (2, 4, 8)
STAGES = ("capture", "distill", "ranges", "sensitivity", "allocate", "rounding", "export", "verify", "report")


def mixed_record(count: int = 53, images: int = 24, side: int = 96, seed: int = 0) -> RunRecord:
    """A network of `count` layers at 4 bits on average, with frontier, candidates and warnings."""
    random = np.random.default_rng(seed)
    layers = made_layers(count, random)
    table = {layer["name"]: made_sensitivity(layer, random) for layer in layers}
    points = made_frontier(layers, table)
    weights = sum(layer["parameters"] for layer in layers)
    bits = chosen_bits(layers, table, 4 * weights)
    for layer in layers:
        layer["weight_bits"], layer["sensitivity"] = bits[layer["name"]], table[layer["name"]]
    chosen = made_setting("frontier 1", bits, layers, table, 1.35)
    uniform = [made_setting(f"uniform {k}", {layer["name"]: k for layer in layers}, layers, table, 1.9) for k in (2, 4)]
    near = [
        made_setting(f"frontier {k}", chosen_bits(layers, table, int(share * weights)), layers, table, 1.5)
        for k, share in ((2, 3.8), (3, 3.6))
    ]
    return RunRecord(
        run=made_run(Options.of(average_bits=4.0), seed),
        result=made_result(layers, chosen),
        ranges={"quantizers": made_ranges(count, random)},
        sensitivity={"measure": "kl", "widths": list(WIDTHS), "layers": table},
        frontier={
            "left_over": {layer["name"]: math.exp(-2 * (1 - n / count)) for n, layer in enumerate(layers, 1)},
            "limit": {"average_bits": 4},
            "points": points,
            "chosen": chosen,
            "candidates": [chosen, *near, *uniform],
        },
        images=made_images(images, side, 3, random),
    )


def uniform_record(count: int = 22, side: int = 8) -> RunRecord:
    """A run with one width for all, of a network that takes tiny grey pictures: nothing was there to choose."""
    record = mixed_record(count, images=16, side=side, seed=1)
    layers = [dict(layer, weight_bits=8, sensitivity={}) for layer in record.result["layers"]]
    chosen = {
        "name": "uniform 8",
        "bits": {layer["name"]: 8 for layer in layers},
        "average_bits": 8.0,
        "weight_bytes": sum(layer["parameters"] for layer in layers),
        "sensitivity": None,
        "divergence": 0.0021,
    }
    return RunRecord(
        run=made_run(Options(), 0),
        result=made_result(layers, chosen) | {"not_quantized": [], "warnings": [], "integer_share": 1.0},
        ranges=record.ranges,
        sensitivity={"measure": "kl", "widths": [8], "layers": {}},
        frontier={"limit": {}, "points": [], "chosen": chosen, "candidates": [chosen]},
        images=None if record.images is None else record.images[..., :1],
    )


def made_layers(count: int, random: np.random.Generator) -> list[dict[str, Any]]:
    """Inverted bottlenecks: narrow and wide pointwise layers around depthwise ones, growing with the depth."""
    layers: list[dict[str, Any]] = []
    for index in range(count):
        depth = index / max(count - 1, 1)
        channels = 16 + 300 * depth**1.5
        kind = index % 3
        name = (
            f"features.{index // 3}.conv.{kind}"
            if 0 < index < count - 1
            else ("features.first", "classifier")[index > 0]
        )
        parameters = int(channels * (9 if kind == 1 else channels * 5.5)) if index else 864
        if index == count - 1 and count > 1:
            parameters = int(1000 * channels)
        area = (112 * 2 ** -round(4 * depth)) ** 2 if index < count - 1 else 1
        layers.append(
            {
                "name": name,
                "operator": "linear" if 0 < index == count - 1 else "conv2d",
                "parameters": parameters,
                "multiply_accumulates": parameters * area,
                "weight_bits": 8,
                "activation_bits": 8,
                "sensitivity": {},
                "rounding": "gptq",
            }
        )
    return layers


def made_sensitivity(layer: dict[str, Any], random: np.random.Generator) -> dict[str, float]:
    """Falling by about 16 from width to width of two bits, higher where each weight is used more often."""
    base = 0.02 * math.exp(random.normal(0, 1.1)) * (layer["multiply_accumulates"] / layer["parameters"]) ** 0.2
    return {
        str(width): float(f"{base * 11.0 ** -(width - 2) * math.exp(random.normal(0, 0.4)):.6g}") for width in WIDTHS
    }


def made_frontier(layers: list[dict[str, Any]], table: dict[str, dict[str, float]]) -> list[list[float]]:
    """Greedy, so not exact, but of the same shape as the real one."""
    bits = {layer["name"]: 2 for layer in layers}
    parameters = {layer["name"]: layer["parameters"] for layer in layers}
    points = [[size_of(bits, parameters), predicted(bits, table)]]
    while any(width < 8 for width in bits.values()):
        best = max((name for name in bits if bits[name] < 8), key=lambda name: gain(name, bits, table, parameters))
        bits[best] *= 2
        points.append([size_of(bits, parameters), predicted(bits, table)])
    return points


def chosen_bits(layers: list[dict[str, Any]], table: dict[str, dict[str, float]], most: int) -> dict[str, int]:
    """The last greedy point within `most` bits."""
    bits = {layer["name"]: 2 for layer in layers}
    parameters = {layer["name"]: layer["parameters"] for layer in layers}
    while True:
        open_ = [
            name for name in bits if bits[name] < 8 and size_of({**bits, name: bits[name] * 2}, parameters) <= most
        ]
        if not open_:
            return bits
        bits[max(open_, key=lambda name: gain(name, bits, table, parameters))] *= 2


def gain(name: str, bits: dict[str, int], table: dict[str, dict[str, float]], parameters: dict[str, int]) -> float:
    """Sensitivity saved per bit of size when the layer's width doubles."""
    width = bits[name]
    return (table[name][str(width)] - table[name][str(2 * width)]) / (width * parameters[name])


def size_of(bits: dict[str, int], parameters: dict[str, int]) -> int:
    return sum(width * parameters[name] for name, width in bits.items())


def predicted(bits: dict[str, int], table: dict[str, dict[str, float]]) -> float:
    return sum(table[name][str(width)] for name, width in bits.items())


def made_setting(
    name: str, bits: dict[str, int], layers: list[dict[str, Any]], table: dict[str, dict[str, float]], factor: float
) -> dict[str, Any]:
    """A candidate whose measured divergence is `factor` of the predicted one."""
    parameters = {layer["name"]: layer["parameters"] for layer in layers}
    total = size_of(bits, parameters)
    return {
        "name": name,
        "bits": bits,
        "average_bits": total / sum(parameters.values()),
        "weight_bytes": total / 8,
        "sensitivity": predicted(bits, table),
        "divergence": predicted(bits, table) * factor,
    }


def made_run(options: Options, seed: int) -> dict[str, Any]:
    return {
        "model": "pytorchcv:mobilenetv2_w1",
        "name": "mobilenetv2_w1",
        "task": "classification",
        "weights": None,
        "weights_sha256": "9f2b6e1c0d4a8875c3e1f7a2b4d60918e5c7f3a1d2b4968705e3c1a9f8d7b6e4",
        "options": options.to_dict(),
        "preprocess": {
            "size": [224, 224], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
            "channels": "RGB", "resize": 256, "interpolation": "bilinear",
        },
        "input_shape": [3, 224, 224],
        "precision": {"dtype": "fp32", "layout": "channels_last", "seconds": {"fp32": 1.31, "bf16": 4.2}},
        "versions": {"zeroq": "0.1.0", "torch": "2.13.0", "onnxruntime": "1.32.0", "python": "3.11.9"},
        "cpu": "Intel Xeon Platinum 8375C, 8 threads",
        "stages": dict.fromkeys(STAGES, f"{seed:08x}"),
    }  # fmt: skip


def made_result(layers: list[dict[str, Any]], chosen: dict[str, Any]) -> dict[str, Any]:
    weights = sum(layer["parameters"] for layer in layers)
    other = 8 * sum(round(math.sqrt(layer["parameters"])) for layer in layers)
    return {
        "version": "0.1.0",
        "model": "pytorchcv:mobilenetv2_w1",
        "task": "classification",
        "seed": 0,
        "effort": "balanced",
        "device": "cpu",
        "cpu": "Intel Xeon Platinum 8375C, 8 threads",
        "precision": "fp32",
        "float_bytes": 4 * weights + other,
        "weight_bytes": int(chosen["weight_bytes"]),
        "other_bytes": other,
        "onnx_bytes": int(chosen["weight_bytes"]) + other + 61_214,
        "average_bits": chosen["average_bits"],
        "compression": 32 / chosen["average_bits"],
        "bounds": {},
        "layers": layers,
        "not_quantized": [
            {"name": "features.1.attention.gate", "reason": "named by --keep-float features.1.attention.*"},
            {"name": "head.embedding", "reason": "an embedding looks rows up and multiplies nothing"},
        ],
        "divergence": {"mean": chosen["divergence"], "agreement": 0.984375, "images": 64},
        "forecast": None,
        "verification": {
            "largest_steps": 1,
            "share_over_one_step": 0.0,
            "agreement": 1.0,
            "optimised_equals_plain": 1.0,
        },
        "integer_nodes": {"QLinearConv": len(layers) - 1, "QLinearAdd": 10, "QGemm": 1},
        "float_nodes": {"QuantizeLinear": 1, "DequantizeLinear": 1, "Softmax": 1},
        "integer_share": 0.99871,
        "seconds": dict(zip(STAGES, (3.1, 96.4, 4.8, 31.0, 0.05, 44.7, 3.9, 6.2, 0.4), strict=True)),
        "peak_memory_mb": 2310.0,
        "warnings": [
            'TASK is not said: [N, 1000] is taken as class scores; write TASK = "classification" to be sure.',
            "No preprocessing is known for this network: ImageNet's mean and deviation were taken.",
        ],
    }


def made_ranges(count: int, random: np.random.Generator) -> dict[str, dict[str, Any]]:
    """The input, rectified values, linear ones and sums."""
    quantizers = {"x": {"low": -2.118, "high": 2.64, "bits": 8, "source": "neither"}}
    for index in range(count):
        high = float(6 * random.beta(5, 1.4)) if index % 3 else float(abs(random.normal(14, 9))) + 1
        source = "batchnorm" if index % 7 == 3 else "distilled"
        low = 0.0 if index % 3 else -high * float(random.uniform(0.6, 1.1))
        kind = ("conv2d", "hardtanh", "hardtanh")[index % 3]
        quantizers[f"{kind}_{index}"] = {"low": round(low, 5), "high": round(high, 5), "bits": 8, "source": source}
        if index % 9 == 8:
            quantizers[f"add_{index // 9}"] = {
                "low": -round(2 * high, 4), "high": round(2.2 * high, 4), "bits": 8, "source": "distilled",
            }  # fmt: skip
    return quantizers


def made_images(count: int, side: int, channels: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """Smooth coloured noise, [count, side, side, channels]: a random spectrum that falls with the frequency."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side))) + 1 / side
    spectrum = random.normal(size=(count, channels, side, side)) + 1j * random.normal(
        size=(count, channels, side, side)
    )
    waves = np.fft.ifft2(spectrum / frequency**1.3).real
    waves = 0.75 * waves + 0.25 * waves.mean(1, keepdims=True)
    waves = waves / waves.std((1, 2, 3), keepdims=True)
    return np.clip(128 + 55 * waves, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
