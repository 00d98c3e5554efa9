"""Train the embedded default anew: python -m zeroq.models.digits.train (half a minute on one core).

Writes weights.safetensors beside this file, or where --out says, and prints the figures of MODEL_CARD.md. The same
version of torch on the same kind of CPU gives the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from zeroq.models.digits.data import Split, load_test_split, load_training_split
from zeroq.models.digits.model import PREPROCESSING, WEIGHTS
from zeroq.models.digits.network import DigitsNetwork
from zeroq.preprocessing import apply_pixels

EPOCHS, BATCH = 40, 64
PEAK_LEARNING_RATE, WEIGHT_DECAY, LABEL_SMOOTHING = 5e-3, 0.05, 0.05
SHIFT = 1  # pixels, in each direction


def train(images: Tensor, labels: Tensor, *, seed: int = 0, epochs: int = EPOCHS) -> nn.Module:
    """A network trained on normalised images [N, 1, 8, 8] and labels [N], in eval mode."""
    with _reproducible(seed):
        network = DigitsNetwork().train()
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
        steps = epochs * -(-len(images) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
        for _ in range(epochs):
            for batch in torch.randperm(len(images)).split(BATCH):
                logits = network(_shifted(images[batch]))  # [BATCH, 10]
                loss = F.cross_entropy(logits, labels[batch], label_smoothing=LABEL_SMOOTHING)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return network.eval()


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of the images whose highest score is that of their label."""
    with torch.no_grad():
        return (network(images).argmax(1) == labels).double().mean().item()


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """One thread, one seed, no operator that adds in an order of its own."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        try:
            torch.set_num_threads(1)
            torch.use_deterministic_algorithms(True)
            torch.manual_seed(seed)
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)


def _shifted(images: Tensor) -> Tensor:
    """The batch moved by up to SHIFT pixels, what comes in black, [N, 1, H, W]."""
    height, width = images.shape[2:]
    black = -PREPROCESSING.mean[0] / PREPROCESSING.std[0]
    padded = F.pad(images, (SHIFT,) * 4, value=black)
    top, left = torch.randint(0, 2 * SHIFT + 1, (2,)).tolist()
    return padded[:, :, top : top + height, left : left + width]


def _tensors(split: Split) -> tuple[Tensor, Tensor]:
    """Normalised images [N, 1, 8, 8] and labels [N]."""
    images, labels = split
    return apply_pixels(images, PREPROCESSING), torch.from_numpy(labels)


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="the safetensors file to write")
    out: Path = parser.parse_args().out
    network = train(*_tensors(load_training_split()))
    out.write_bytes(save(network.state_dict()))  # save_file would let nobody else read it
    lines = [f"parameters          {sum(parameter.numel() for parameter in network.parameters()):,}"]
    for name, load in (("training", load_training_split), ("test", load_test_split)):
        images, labels = _tensors(load())
        lines.append(f"{name:<8} accuracy   {100 * accuracy(network, images, labels):.2f} % of {len(images)} images")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
