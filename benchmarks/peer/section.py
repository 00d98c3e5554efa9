"""What docs/benchmarks.md says of the toolkit: values in, one text out."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from benchmarks import limits
from benchmarks.document import NOTHING, Record, Results, interval, succeeded, table, versus_float, widths
from benchmarks.halves import CONFIRMATION, SELECTION
from benchmarks.peer.rows import IMAGES, PEER_SETTINGS, PeerRow
from benchmarks.peer.toolkit import ITERATIONS
from benchmarks.rows import Row

TEXT = """Sony's model-compression-toolkit in an environment of its own and with its own settings: {images} images from
its data generation, as many as ours, of its {iterations} iterations, then its post-training quantization on these for
its default target platform. Where the tables name fewer iterations, a row is no measure of what it can do. Weights have
a symmetric scale for each channel there, at average 4 with 2, 4 or 8 bits by its own choice within the bytes of 4 bits
on average; activations and the output have 8 bits and ranges that are powers of two. *Toolkit* is its PyTorch module,
which simulates integers, *ours* the file of the same setting above; all answer the same pictures.
Versions: {versions}."""


def section(ours: Results[Row], found: Mapping[PeerRow, Record], stale: Collection[PeerRow]) -> list[str]:
    """Ours and the toolkit's beside float; nothing as long as the toolkit has no rows.

    found, stale: as document() has them, of the toolkit.
    """
    if not found:
        return []
    peers, failures = succeeded(found, stale)
    versions = sorted(
        {", ".join(f"{n} {v}" for n, v in record["versions"].items()) for record in peers.records.values()}
    )
    parts = [
        "## Beside model-compression-toolkit",
        TEXT.format(versions="; ".join(versions) or "none yet", images=IMAGES, iterations=ITERATIONS),
    ]
    for role in (CONFIRMATION, SELECTION):
        header = ["network", "setting", "float", "ours", "to float", "toolkit", "to float", "ours minus toolkit"]
        rows = [compared_row(ours, peers, row, role) for row in peers.records]
        parts += [f"### {role.capitalize()}, beside the toolkit", table(header, rows)]
    header = ["network", "setting", "average bits, ours", "layers at 2, 4, 8"]
    header += ["average bits, toolkit", "layers at 2, 4, 8", "iterations of its images"]
    parts += ["### Bits chosen", table(header, [bits_row(ours, peers, row) for row in peers.records])]
    if failures:
        parts.append(table(["toolkit's row that failed", "why"], [[row.name, why] for row, why in failures.items()]))
    return parts


def compared_row(ours: Results[Row], peers: Results[PeerRow], row: PeerRow, role: str) -> list[str]:
    """One line: top-1 of float, of ours and of the toolkit, and the differences."""
    before, after, difference = versus_float(role)
    gain = NOTHING
    if row.ours in ours.records:
        pair = limits.against_row(peers.records[row], ours.records[row.ours], role)
        gain = interval(pair) + (ours.mark(row.ours) or peers.mark(row))
    few = "" if row.iterations == ITERATIONS else f" ({of_iterations(row)} iterations)"
    return [
        row.network, PEER_SETTINGS[row.setting], before(peers.records[row]),
        *(ours.cell(row.ours, text) for text in (after, difference)),
        peers.cell(row, lambda record: after(record) + few), peers.cell(row, difference), gain,
    ]  # fmt: skip


def bits_row(ours: Results[Row], peers: Results[PeerRow], row: PeerRow) -> list[str]:
    """One line: bits of both, and of how many iterations the toolkit's images are."""
    cells = [
        *(ours.cell(row.ours, text) for text in (average, widths)),
        *(peers.cell(row, text) for text in (average, widths)),
    ]
    return [row.network, PEER_SETTINGS[row.setting], *cells, of_iterations(row)]


def of_iterations(row: PeerRow) -> str:
    """Those of the images, and the toolkit's own where they are others."""
    return str(row.iterations) if row.iterations == ITERATIONS else f"{row.iterations} of {ITERATIONS}"


def average(record: Record) -> str:
    """Bits of a weight."""
    return f"{record['average_bits']:.3f}"
