"""Sony's data generation beside ours, on the same network and number of images, in one run on one machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import recipe
from benchmarks.peer.environment import run_in
from benchmarks.peer.toolkit import ITERATIONS
from benchmarks.speed_stages import ours_distilled, timed
from benchmarks.speed_subject import Subject, quality, reference_of, sensitivities
from zeroq.numbers.tensor_file import read_tensor_file
from zeroq.precision import choose_precision

PROBED = 5  # iterations that tell how long one takes


class PeerError(Exception):
    """The toolkit gave no images."""


def measured(subject: Subject, name: str, data: Path, python: Path, *, whole: bool) -> dict[str, Any]:
    """Ours; the toolkit's for as long as ours took; and with all of its iterations, calculated unless whole.

    python: of an environment that has the toolkit.
    """
    precision = choose_precision(subject.network)[0]
    images, spent = timed(lambda: ours_distilled(subject, precision))
    reference = reference_of(subject)

    def judged(found: Tensor) -> dict[str, float]:
        return quality(subject, found, None if reference is None else sensitivities(subject, found), reference)

    _, probe = generated(name, data, python, PROBED)
    step = (probe["seconds"] - probe["one_seconds"]) / (PROBED - 1)
    fitting = min(ITERATIONS, max(1, 1 + round((spent.seconds - probe["one_seconds"]) / step)))
    equal_images, equal = generated(name, data, python, fitting)
    rows = [
        {"who": "ours", "iterations": None, "seconds": round(spent.seconds, 3), "quality": judged(images)},
        {"who": "peer", "iterations": fitting, "seconds": equal["seconds"], "quality": judged(equal_images)},
    ]
    if whole:
        all_images, done = generated(name, data, python, ITERATIONS)
        rows.append(
            {"who": "peer", "iterations": ITERATIONS, "seconds": done["seconds"], "quality": judged(all_images)}
        )
    else:
        rows.append({
            "who": "peer", "iterations": ITERATIONS, "calculated": True, "quality": {},
            "seconds": round(probe["one_seconds"] + (ITERATIONS - 1) * step, 3),
        })  # fmt: skip
    return {
        "precision": f"{precision.name} {precision.layout}",
        "images": len(images),
        "versions": probe["versions"],
        "rows": rows,
    }


def generated(name: str, data: Path, python: Path, iterations: int) -> tuple[Tensor, dict[str, Any]]:
    """The toolkit's images of a network, and what its process says of them. Raises PeerError."""
    with tempfile.TemporaryDirectory(prefix="benchmark-peer-") as folder:
        tensors = Path(folder) / "images.safetensors"
        found, error = run_in(
            python, "benchmarks.peer.images", [name], data,
            tensors=tensors, images=recipe.IMAGES, iterations=iterations, threads=torch.get_num_threads(),
        )  # fmt: skip
        if error is not None:
            raise PeerError(f"The peer's environment gave no images of {name}: {error}")
        return read_tensor_file(tensors)[0]["images"], found
