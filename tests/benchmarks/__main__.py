"""Measures what this toolkit costs, beside doing it by hand: ``python tests/benchmarks [--quick] [--strict] [NAME …]``.

Prints a table with every goal beside its figure and writes the same as JSON to ``runs/bench.json``. Exit code 1 where a
benchmark broke, and with ``--strict`` also where a goal is missed; without it a miss says little, as on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import asdict
from importlib import import_module

from measure import ROOT, Line, Size
from rich.console import Console
from rich.table import Table

BENCHMARKS = ("trials", "study", "orchestration", "tracking", "data", "commands", "start", "reopening")
"""Modules of this folder; each has ``run(size)``, which returns lines."""
NAMED = ("allocators",)
"""Modules that run only where they are named: they compare what could be, not what is."""

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    # One thread per process, for every tool: two threads make a model this small slower on two cores.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


def main() -> None:
    """Run the benchmarks named, or all."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join((*BENCHMARKS, *NAMED)))
    parser.add_argument("--quick", action="store_true", help="one repetition, smaller studies, no Ray; under 3 minutes")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a goal is missed (on a quiet machine)")
    parser.add_argument("--repeats", type=int, help="repetitions instead of 3 (1 with --quick)")
    options = parser.parse_args()
    if unknown := set(options.names).difference(BENCHMARKS, NAMED):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join((*BENCHMARKS, *NAMED))}")
    os.environ.update(QUIET)
    console = Console(width=None if Console().is_terminal else 150)
    size = Size(options.quick, options.repeats or (1 if options.quick else 3))
    lines: list[Line] = []
    broken: list[str] = []
    for name in options.names or BENCHMARKS:
        began = time.monotonic()
        try:
            found = import_module(name).run(size)
        except Exception:  # noqa: BLE001  # one that breaks is said, and costs no other its figures
            console.print_exception()
            broken.append(name)
            continue
        lines += found
        console.print(table(found, title=f"{name} ({time.monotonic() - began:.0f} s)"))
        write(lines, size)
    missed = [line.what for line in lines if line.met is False and options.strict]
    if broken or missed:
        raise SystemExit(
            "; ".join(f"{word}: {', '.join(names)}" for word, names in (("broke", broken), ("missed", missed)) if names)
        )


def write(lines: list[Line], size: Size) -> None:
    """Write what was measured so far as JSON."""
    folder = ROOT / "runs"
    folder.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    head = {"at": time.time(), "quick": size.quick, "repeats": size.repeats, **machine}
    rows = [{**asdict(line), "met": line.met} for line in lines]
    (folder / "bench.json").write_text(json.dumps({**head, "lines": rows}, indent=2) + "\n")


def table(lines: list[Line], *, title: str) -> Table:
    """Return the lines as a table."""
    made = Table("goal", "what", "measured", "range", "wanted", "", "details", title=title)
    for line in lines:
        met = {True: "met", False: "missed", None: ""}[line.met]
        made.add_row(line.goal, line.what, f"{line.figure:.3g} {line.unit}", line.spread, line.wanted, met, line.detail)
    return made


if __name__ == "__main__":
    main()
