"""Imports point one way: a module imports from lower floors, no stage imports another, nothing goes in a circle."""

from __future__ import annotations

from graphlib import TopologicalSorter

from tests.house import imports, modules

FLOORS = [
    {"effort", "errors", "reason", "version"},
    {"graph", "numbers", "simulate", "divergence", "devices", "precision", "preprocessing", "options", "setting",
     "ranks", "resident", "shared_memory", "whole_files"},
    {"distillation", "ranges", "sensitivity", "compensation", "allocate", "rounding", "repair", "finer_outputs",
     "deploy", "evaluate"},
    {"models", "report", "run_directory"},
    {
        *("pipeline", "preparation", "guidance", "candidates", "channels", "fitted_ranges", "stages", "selection"),
        *("fastest", "rehearsal", "latency", "demand", "memory", "bounds", "final_network"),
        *("outcome", "forecast", "conclusion", "stored", "accuracy", "adaptation", "speed", "many"),
    },
    {"cli", "arguments", "endings", "terminal", "__main__"},
]
SIBLINGS_MEET = {1, 4, 5}  # the values and the graph build on one another, and the command line is one program
FLOOR_OF = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}


def part_of(module: str) -> str:
    """The folder or single file directly under zeroq, "" for zeroq itself."""
    return (module.split(".") + [""])[1]


def test_every_module_has_a_floor() -> None:
    assert {part_of(name) for name in modules()} - {""} <= set(FLOOR_OF)


def test_imports_come_from_lower_floors() -> None:
    wrong = []
    for name, targets in imports().items():
        part = part_of(name)
        for target in sorted(targets):
            other = part_of(target)
            if not part or other == part:
                continue
            assert other, f"{name} imports the package's root"
            allowed = FLOOR_OF[part] + (FLOOR_OF[part] in SIBLINGS_MEET)
            if FLOOR_OF[other] >= allowed:
                wrong.append(f"{name} > {target}")
    assert wrong == []


def test_no_module_imports_itself_by_a_detour() -> None:
    TopologicalSorter(imports()).prepare()  # CycleError names the circle
