"""Networks of every task as a user's own files, tiny ones, with data that fit them.

write_task(folder, "detection")        # folder/detection.py and folder/data; MODEL is TASKS["detection"]
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

HEAD = '''
import torch
from torch import nn

PREPROCESS = dict(size=(8, 8), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), channels="RGB", resize="stretch")

def settled(network):
    """Statistics as if it had been trained on random pictures."""
    torch.manual_seed(1)
    with torch.no_grad():
        network.train()
        for _ in range(40):
            network((torch.rand(32, 3, 8, 8) - 0.5) / 0.25)
    return network.eval()

def stem():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
'''

SOURCES = {
    "segmentation": '''
TASK = "segmentation"
IGNORE = 9

def net():
    """Class scores at every second pixel."""
    return settled(nn.Sequential(stem(), nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8),
                                 nn.ReLU(), nn.Conv2d(8, 3, 1)))
''',
    "regression": '''
TASK = "regression"

def net():
    """Two numbers for each image."""
    return settled(nn.Sequential(stem(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)))
''',
    "detection": '''
TASK = "detection"

class Detector(nn.Module):
    """One box for each quarter of the picture: scores of two classes, and offsets of the corners."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(stem(), nn.MaxPool2d(4))
        self.scores, self.boxes = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.scores(x), self.boxes(x)

def net():
    return settled(Detector())

def decode(outputs):
    scores, boxes = outputs
    cells = torch.tensor([[x / 2, y / 2, x / 2 + 0.5, y / 2 + 0.5] for y in (0, 1) for x in (0, 1)])
    found = []
    for score, box in zip(scores.sigmoid().flatten(2), boxes.flatten(2)):
        best, kind = score.max(dim=0)
        corners = (cells + 0.05 * box.T.tanh()).clamp(0, 1)
        found.append(torch.cat([corners, best[:, None], kind[:, None].float()], dim=1))
    return found
''',
    "own": '''
TASK = "classification"

def divergence(reference, outputs):
    """The largest difference of any score."""
    return (reference - outputs).abs().amax(dim=1)

def net():
    return settled(nn.Sequential(stem(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)))
''',
}  # fmt: skip
PICTURES = 6


def write_source(folder: Path, name: str) -> str:
    """The file of a network; gives its MODEL."""
    (folder / f"{name}.py").write_text(HEAD + SOURCES[name])
    return f"{folder / name}.py:net"


def pixels_of(count: int = PICTURES) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 12, 3), dtype=np.uint8)


def write_segmentation(folder: Path) -> Path:
    generator = np.random.default_rng(1)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for index, pixels in enumerate(pixels_of()):
        Image.fromarray(pixels).save(folder / f"images/{index}.png")
        label = generator.choice(np.array([0, 1, 2, 9], np.uint8), (16, 12))
        Image.fromarray(label).save(folder / f"labels/{index}.png")
    return folder


def write_detection(folder: Path) -> Path:
    folder.mkdir(parents=True)
    images, boxes = [], []
    for index, pixels in enumerate(pixels_of()):
        Image.fromarray(pixels).save(folder / f"{index}.png")
        images.append({"id": index, "file_name": f"{index}.png", "height": 16, "width": 12})
        boxes += [
            {"id": len(boxes), "image_id": index, "category_id": 1 + index % 2, "bbox": [0, 0, 6, 8]},
            {"id": len(boxes) + 1, "image_id": index, "category_id": 2, "bbox": [6, 8, 6, 8]},
        ]
    said = {"images": images, "annotations": boxes, "categories": [{"id": 1}, {"id": 2}]}
    (folder / "instances.json").write_text(json.dumps(said))
    return folder


def write_regression(folder: Path) -> Path:
    folder.mkdir(parents=True)
    pixels = pixels_of()
    np.savez(folder / "data.npz", images=pixels, targets=pixels.mean(axis=(1, 2))[:, :2] / 255)
    return folder / "data.npz"


def write_own(folder: Path) -> Path:
    folder.mkdir(parents=True)
    np.savez(folder / "data.npz", images=pixels_of(), labels=np.arange(PICTURES) % 5)
    return folder / "data.npz"


DATA: dict[str, Callable[[Path], Path]] = {
    "segmentation": write_segmentation, "detection": write_detection, "regression": write_regression, "own": write_own,
}  # fmt: skip
METRICS = {
    "segmentation": ["miou", "pixel_accuracy"], "detection": ["map", "map50"], "regression": ["nmse"],
    "own": ["top1", "top5", "standard_error"],
}  # fmt: skip
