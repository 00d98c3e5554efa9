"""Rows of any kind brought up to date, one after another: what the commands that measure have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from benchmarks.process import Kept, measured, renewed
from zeroq import devices
from zeroq.options import Options

TIME_LIMIT = 5400  # seconds for one row
Outcome = tuple[dict[str, Any], str | None]  # what was measured, or why nothing was


class Asked(Kept, Protocol):
    """A row that is asked for by its network and setting."""

    @property
    def network(self) -> str: ...

    @property
    def setting(self) -> str: ...


class Measurable(Asked, Protocol):
    """A row that is measured in a process of its own."""

    MEASURED_BY: ClassVar[str]  # the module that does it

    def options(self, **further: Any) -> Options: ...

    @property
    def facts(self) -> dict[str, str]:
        """What tells the row from all others of its kind: words of the module, in this order, and of the row's file."""


AnyAsked = TypeVar("AnyAsked", bound=Asked)
AnyRow = TypeVar("AnyRow", bound=Measurable)


def measure_rows(
    rows: Iterable[AnyRow],
    asked: argparse.Namespace,
    refresh: Callable[[], None],
    summary: Callable[[dict[str, Any]], str] | None = None,
) -> int:
    """Measure those rows whose network and setting were asked for, unless their results still hold; the exit code.

    A row that failed is tried again.
    refresh: writes the document that the rows are for, after each and in the end.  summary: a line on a new result.
    """

    def bring(row: AnyRow, title: str) -> bool:
        keys = row.valid_keys()
        measure = partial(measured, row.MEASURED_BY, list(row.facts.values()), asked)
        return renewed(title, row.file, row.facts | {"key": keys[0]}, measure, refresh, summary, keys)

    return renew_rows(rows, asked, refresh, bring)


def renew_rows(
    rows: Iterable[AnyAsked],
    asked: argparse.Namespace,
    refresh: Callable[[], None],
    bring: Callable[[AnyAsked, str], bool],
) -> int:
    """`measure_rows` for rows that are measured in another way.

    bring: brings one up to date, given it and its title; whether there is a result now.
    """
    chosen = [row for row in rows if row.network in asked.networks and row.setting in asked.settings]
    failures = 0
    for number, row in enumerate([] if asked.markdown_only else chosen, 1):
        failures += not bring(row, f"{number}/{len(chosen)} {row.name}")
    refresh()
    return 1 if failures else 0


def renew_networks(
    asked: argparse.Namespace,
    results: Path,
    key: Callable[[str], str],
    measure: Callable[[str, Path, int | None], Outcome],
    refresh: Callable[[], None],
    entry: str,
) -> None:
    """A result for each network that was asked for, measured in this process, then the document.

    key: of everything that decides a network's result.  measure: given its name, the data and the threads.
    entry: of a new result, what is printed.
    """
    with devices.threads(asked.threads):
        for name in () if asked.markdown_only else asked.networks:
            facts = {"network": name, "key": key(name), "cpu": devices.processor()}
            one = partial(measure, name, asked.data, asked.threads)
            renewed(name, results / f"{name}.json", facts, one, refresh, lambda record: str(record[entry]))
    refresh()
