"""What must hold of the times on docs/performance.md, and whether a result holds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks.document import kept
from benchmarks.limits import UNITS

Record = Mapping[str, Any]
STAGES, STEP, RUNS, PEER = "stages", "step", "runs", "peer"
PARTS = (STAGES, STEP, RUNS, PEER)
LEAST_GAIN, AIMED_GAIN = 15.0, 30.0  # times less than the recipe's time of the images
NO_WORSE = {"resnet18": ("statistics_loss",), "mobilenet_v2": ("range_error", "rank_correlation")}  # for that limit
MOST_STEP = 1.3  # units
RUN_LIMITED, AIMED_UNITS = ("resnet18", "mobilenet_v2", "mobilenetv2_w1", "resnet50"), 60.0
MOST_SECONDS = {"resnet50": 10.0}  # of a whole run on a GPU
AGAIN = ", again in the same process"
QUALITIES = {  # how good images are: heading, and whether more is better
    "statistics_loss": ("statistics loss", False),
    "range_error": ("range error", False),
    "rank_correlation": ("rank correlation", True),
    "confidence": ("confidence", True),
}


class Limit(NamedTuple):
    """What must hold of a network, and whether it does."""

    what: str
    network: str
    found: str
    must: str
    verdict: str


def judged(part: str, record: Record) -> list[str]:
    """One sentence for each limit that a record is held to."""
    return [f"{limit.what} {limit.found} ({limit.must}): {limit.verdict}" for limit in LIMITS[part](record)]


def computed_by_cpu(record: Record) -> bool:
    """Whether a record is of a processor; the earliest name no other device."""
    return bool(record.get("device", record["cpu"]) == record["cpu"])


def title(record: Record) -> str:
    """The network, and the GPU if one computed."""
    return record["network"] if computed_by_cpu(record) else f"{record['network']}, {record['device']}"


def gain_of(both: Mapping[str, float]) -> float:
    """Times less than the recipe."""
    return both["recipe"] / both["ours"]


def limits_of_stages(record: Record) -> list[Limit]:
    """Images: the time, and the quality in what is asked of the network; not judged before the recipe's are made."""
    entries = NO_WORSE.get(record["network"], ())
    if not entries or not computed_by_cpu(record):
        return []
    gain, both = gain_of(record["seconds"]["images"]), record["quality"]
    found, verdict = f"{gain:.1f} times less", kept(gain >= LEAST_GAIN)
    if "recipe" in both:
        pairs = [(QUALITIES[entry], both["ours"][entry], both["recipe"][entry]) for entry in entries]
        found += "".join(f"; {name} {ours:.3f} against {theirs:.3f}" for (name, _), ours, theirs in pairs)
        fine = all(ours >= theirs if more else ours <= theirs for (_, more), ours, theirs in pairs)
        verdict = kept(gain >= LEAST_GAIN and fine)
    elif gain >= LEAST_GAIN:
        verdict = "time met, quality not measured"
    must = f"{LEAST_GAIN:g}, aim {AIMED_GAIN:g}, at no worse {' and '.join(QUALITIES[each][0] for each in entries)}"
    return [Limit("images against the recipe", record["network"], found, must, verdict)]


def limits_of_step(record: Record) -> list[Limit]:
    units = record["step_seconds"] / record["unit_seconds"]
    verdict = kept(units <= MOST_STEP)
    return [Limit("step of distillation", record["network"], f"{units:.2f} units", f"at most {MOST_STEP:g}", verdict)]


def limits_of_run(record: Record) -> list[Limit]:
    name, units = record["network"], record["units"]
    if not computed_by_cpu(record):
        most = MOST_SECONDS.get(name)
        totals = [] if most is None else [(which, times["total_seconds"]) for which, times in runs_of(record)]
        return [
            Limit(f"whole run{which}", title(record), f"{total:.1f} s", f"under {most:g} s", kept(total < most))
            for which, total in totals
        ]
    if name not in RUN_LIMITED:
        return []
    return [
        Limit("whole run", name, f"{units:.0f} units", f"at most {UNITS:g}, aim {AIMED_UNITS:g}", kept(units <= UNITS))
    ]


def runs_of(record: Record) -> list[tuple[str, Record]]:
    """A process's first run, and its second if it had one: what it is called, and its times."""
    first: tuple[str, Record] = ("", record)
    return [first, (AGAIN, record["again"])] if "again" in record else [first]


LIMITS: dict[str, Callable[[Record], list[Limit]]] = {
    STAGES: limits_of_stages, STEP: limits_of_step, RUNS: limits_of_run, PEER: lambda record: [],
}  # fmt: skip
