"""What a linear repair of each block is worth behind the rounding, as an operator of its own:

    python -m benchmarks.linear_repair --data ../shared/data

QwT (arXiv:2411.13918): behind each quantized block a linear map of what the block is given, in floating point, fitted
in closed form to what the block misses. Results go to benchmarks/results/linear_repair/; one whose method is unchanged
is not measured again. docs/linear-repair.md is written anew after each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from benchmarks.document import table
from benchmarks.halves import CONFIRMATION, SELECTION
from benchmarks.process import read, renewed
from benchmarks.rows import DISTILLED, ROOT, W4_EDGES_8, W4A4, Row, key_of, method_code, program
from benchmarks.up_to_setting import PICTURES, Chosen, beside_float, chosen
from zeroq import devices
from zeroq.candidates import CHUNK, HELD_OUT, joined
from zeroq.final_network import CORRECTED, chosen_correction
from zeroq.graph import Network, chunks, replay
from zeroq.rounding.reconstruction import blocks_between
from zeroq.simulate import QuantizedNetwork
from zeroq.simulate.quantized_network import value_of

RESULTS, DOCUMENT = ROOT / "benchmarks" / "results" / "linear_repair", ROOT / "docs" / "linear-repair.md"
SETTINGS = {W4_EDGES_8: "W4A8", W4A4: "W4A4"}  # by what the table calls them
RIDGE = 1e-3  # of the mean square of what a map is given
HEAD = """# A linear repair of each block

Written by `python -m benchmarks.linear_repair --data ../shared/data`; change nothing here by hand.

QwT (arXiv:2411.13918) puts behind each quantized block a linear map of what the block is given, fitted in closed form
to what the block misses. zeroq has that repair without an operator of its own: each layer is rounded to the regression
of its outputs in floating point on the inputs that it has (`src/zeroq/rounding/targets.py`), which is the repair of
what stands before it, merged into the layer that follows. Below is what QwT's own maps add to that: 1 x 1 convolutions
in floating point, in front of the quantizer at a block's end, fitted one after another on the distilled images and
variants that weights are rounded on. A map is kept where a quarter of these, which it was not fitted to, miss less by
it. Uniform settings with the first and the last layer at 8 bits, as `--effort balanced` rounds them.

- *Blocks*: with a map, of all that can have one.
- *Held out*, *misfit*: divergence from float on distilled images that nothing was fitted to; that, and on noise.
- *Divergence*, *top-1*: of the simulation, on up to {pictures} pictures of each half.
- *Parameters*: of the maps, in floating point, as part of the network's own.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.linear_repair", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--networks", default="resnet20_cifar10,resnet20_cifar100,vit_cifar10,mobilenet_v1_025")
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--markdown-only", action="store_true", help="measure nothing, write the document again")
    asked = parser.parse_args()
    rows = [(name, setting) for name in asked.networks.split(",") for setting in asked.settings.split(",")]
    for name, setting in [] if asked.markdown_only else rows:
        renewed(
            f"{name} {setting}", RESULTS / f"{name}-{setting}.json",
            {"network": name, "setting": setting, "key": key(name, setting)},
            partial(measured, Row(name, setting, DISTILLED), asked.data.resolve(), asked.threads), write_document,
        )  # fmt: skip
    write_document()
    return 0


def key(network: str, setting: str) -> str:
    """Of everything that decides a result."""
    return key_of([network, setting, method_code(network), program(Path(__file__).read_text(encoding="utf-8"))])


def measured(row: Row, data: Path, threads: int | None) -> tuple[dict[str, Any], None]:
    """A network in a setting, rounded as `--effort balanced` does, and then with maps; no error."""
    with chosen(row, data, threads) as run:
        candidates = run.candidates
        tried = candidates.tried(run.setting, list(CORRECTED), lambda done, total: None)
        weights = tried[chosen_correction({name: misfit for name, (_, misfit) in tried.items()})][0]
        network, folded = candidates.network(weights), candidates.prepared.folded
        images = joined(candidates.images.rounding, candidates.images.variants)
        with torch.inference_mode():
            maps, tried_at = repaired(network, folded, [*chunks(images, CHUNK)])
        return {
            "blocks": [len(maps), tried_at],
            "parameters": sum(each.matrix.numel() + len(each.offset) for each in maps)
            / sum(layer.parameters for layer in folded.layers),
            "before": state(run, partial(run_with, network, {})),
            "after": state(run, partial(run_with, network, {each.end: each for each in maps})),
            "cpu": devices.processor(),
        }, None


def state(run: Chosen, network: Callable[..., Any]) -> dict[str, Any]:
    """What distilled images and what pictures say of a network."""
    misfit = run.candidates.misfit(network)
    sets = {half.role: beside_float(network, half, run.expected[half.role]) for half in run.pictures}
    return {"held_out": misfit.held_out, "misfit": misfit.with_noise, "sets": sets}


@dataclass(frozen=True)
class Map:
    """What is added in front of the quantizer of a value: matrix [out, in] times another value, and offset [out]."""

    start: str  # the node that it reads
    end: str  # the node to whose value it is added
    matrix: Tensor
    offset: Tensor

    def of(self, source: Tensor, like: Tensor) -> Tensor:
        """Its values in the shape of what it is added to."""
        return shaped(features(source, like) @ self.matrix.T + self.offset, like)


def features(source: Tensor, like: Tensor) -> Tensor:
    """[N, C, H, W] or [N, T, C] as rows [..., C], one for each position of `like`."""
    if source.dim() != 4:
        return source
    steps = [have // wanted for have, wanted in zip(source.shape[2:], like.shape[2:], strict=True)]
    return source[:, :, :: steps[0], :: steps[1]].movedim(1, -1)


def shaped(rows: Tensor, like: Tensor) -> Tensor:
    """Rows in the order of a value."""
    return rows.movedim(-1, 1) if like.dim() == 4 else rows


def fitting(source: Tensor, like: Tensor) -> bool:
    """Whether positions of two values answer to each other."""
    if source.dim() != like.dim() or source.dim() not in (3, 4):
        return False
    if source.dim() == 3:
        return source.shape[1] == like.shape[1]
    return all(have % wanted == 0 for have, wanted in zip(source.shape[2:], like.shape[2:], strict=True))


def run_with(network: QuantizedNetwork, maps: Mapping[str, Map], *inputs: Tensor) -> Any:
    """The network's output with maps, by the node that they are added to.

    By the graph that is exported, whose values in front of quantizers are there, unlike in that of integer sums.
    """
    names = [node.name for node in network.graph.nodes if node.op == "placeholder"]
    live = dict(zip(names, inputs, strict=True))
    return replay(network.graph, network.tensors(), live, visit=adding(maps))["output"]


def adding(maps: Mapping[str, Map]) -> Callable[[fx.Node, Any], Any]:
    """What `replay` is to do at each node."""
    starts = {each.start for each in maps.values()}
    kept: dict[str, Tensor] = {}

    def visit(node: fx.Node, value: Any) -> Any:
        if node.name in starts:
            kept[node.name] = value
        if node.name in maps:
            return value + maps[node.name].of(kept[maps[node.name].start], value)
        return None

    return visit


def repaired(network: QuantizedNetwork, folded: Network, parts: list[tuple[Tensor, ...]]) -> tuple[list[Map], int]:
    """Maps that are kept, each fitted behind those before it, and how many were tried; parts: images in chunks."""
    nodes = {node.name: node for node in network.graph.nodes}
    maps: dict[str, Map] = {}
    tried = 0
    for block in blocks_between(folded, network.graph, folded.layers):
        if block.start is None or block.end is None:
            continue
        end = nodes[block.end].all_input_nodes[0].name
        rows = [of_block(network, folded, maps, block.start, end, block.end, part) for part in parts]
        if not all(fitting(source, value) for source, value, _ in rows):
            continue
        tried += 1
        count = len(rows) - max(1, len(rows) // HELD_OUT)
        found = fitted(block.start, end, rows[:count])
        before, after = (missed(each, rows[count:]) for each in (None, found))
        if after < before:
            maps[end] = found
    return list(maps.values()), tried


def of_block(
    network: QuantizedNetwork, folded: Network, maps: Mapping[str, Map], start: str, end: str, quantized: str,
    images: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """What a block is given, what it gives in front of its quantizer, and what the latter misses behind it."""
    seen: dict[str, Tensor] = {}
    add = adding(maps)

    def note(node: fx.Node, value: Any) -> Any:
        changed = add(node, value)
        if node.name in (start, end, quantized):
            seen[node.name] = value if changed is None else changed
        return changed

    names = [node.name for node in network.graph.nodes if node.op == "placeholder"]
    live = dict(zip(names, images, strict=True))
    replay(network.graph, network.tensors(), live, visit=note, until=quantized)
    wanted: dict[str, Tensor] = {}
    name = value_of(quantized)

    def note_own(node: fx.Node, value: Any) -> None:
        if node.name == name:
            wanted[name] = value

    replay(folded.graph, folded.tensors, folded.feed(images), visit=note_own, until=name)
    return seen[start], seen[end], wanted[name] - seen[quantized]


def fitted(start: str, end: str, rows: list[tuple[Tensor, Tensor, Tensor]]) -> Map:
    """The map of least squares, with a small ridge."""
    given = torch.cat([with_one(features(source, value)) for source, value, _ in rows]).double()
    wanted = torch.cat([as_rows(missing) for _, _, missing in rows]).double()
    moments = given.T @ given
    ridge = RIDGE * moments.diag()[:-1].mean() * torch.eye(len(moments), dtype=torch.float64)
    ridge[-1, -1] = 0
    solution = torch.linalg.solve(moments + ridge, given.T @ wanted).float()
    return Map(start, end, solution[:-1].T.contiguous(), solution[-1])


def with_one(rows: Tensor) -> Tensor:
    """[positions, C + 1], the last of them 1."""
    flat = rows.flatten(0, -2)
    return torch.cat([flat, torch.ones(len(flat), 1)], 1)


def as_rows(value: Tensor) -> Tensor:
    """[positions, C]."""
    return (value.movedim(1, -1) if value.dim() == 4 else value).flatten(0, -2)


def missed(own: Map | None, rows: list[tuple[Tensor, Tensor, Tensor]]) -> float:
    """Squared error of what a block gives, with its map or without."""
    return sum(
        float((missing - (0 if own is None else own.of(source, value))).square().sum())
        for source, value, missing in rows
    )


def write_document() -> None:
    """docs/linear-repair.md, from all results."""
    DOCUMENT.write_text(document([read(path) for path in sorted(RESULTS.glob("*.json"))]), encoding="utf-8")


def document(records: list[Any]) -> str:
    """The page; a result of another program is marked."""
    header = ["network", "setting", "blocks", "parameters", "held out", "misfit"]
    header += [f"{word}, {role}" for role in (SELECTION, CONFIRMATION) for word in ("divergence", "top-1")]
    lines = []
    for record in records:
        pair = record["before"], record["after"]
        stale = "" if key(record["network"], record["setting"]) == record["key"] else " `stale`"
        cells = [record["network"] + stale, SETTINGS[record["setting"]], "{} of {}".format(*record["blocks"])]
        cells.append(f"{100 * record['parameters']:.0f} %")
        cells += [f"{pair[0][name]:.3f} to {pair[1][name]:.3f}" for name in ("held_out", "misfit")]
        for role in (SELECTION, CONFIRMATION):
            halves_of = [each["sets"][role] for each in pair]
            cells.append(" to ".join(f"{each['divergence']:.3f}" for each in halves_of))
            cells.append(" to ".join(f"{100 * each['top1'] / each['images']:.2f}" for each in halves_of))
        lines.append(cells)
    cpu = "; ".join(sorted({record["cpu"] for record in records}))
    parts = [HEAD.format(pictures=PICTURES), f"Measured on {cpu}.", table(header, lines)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
