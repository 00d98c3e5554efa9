"""The stage that lets the channels of some values lie around zero, before ranges are fitted to them."""

from __future__ import annotations

from dataclasses import replace

import torch

from zeroq.candidates import NOISE, Images
from zeroq.repair import middles, shiftable
from zeroq.stages import Stages

FILE = "centres.json"


def centred(stages: Stages, images: Images) -> Stages:
    """The stages behind it, of the network that is centred; there is none where nothing can be.

    images: on the device.
    """
    prepared = stages.computing
    if not shiftable(prepared.folded):
        return stages
    centres = stages.stage(
        "centres", {"noise": NOISE}, [FILE],
        compute=lambda: middles(prepared.folded, images.observed, stages.amounts.chunk),
        save=lambda found: stages.run.write_json(FILE, {name: each.tolist() for name, each in found.items()}),
        load=lambda: {
            name: torch.tensor(each, dtype=torch.float64) for name, each in stages.run.read_json(FILE).items()
        },
    )  # fmt: skip
    return replace(stages, prepared=stages.prepared.centred(centres))
