"""How good an answer each strategy has at equal cost: ``make bench-search``; see README.md."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from quality.tasks import Task, tasks
from quality.virtual import Course, Terms, run
from sweepkit.driver.earlier import Source

DATA = Path(__file__).parents[3] / "shared" / "quality"
FAMILIES = ("taskset", "fitted", "lcbench", "made-up")
ASHA = {"type": "asha", "min_resource": 1, "reduction_factor": 3}
LATER = {**ASHA, "min_resource": "auto"}

STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "random": {"sampler": {"type": "random"}},
    "tpe": {"sampler": {"type": "tpe"}},
    "tpe+asha": {"sampler": {"type": "tpe"}, "pruner": ASHA},
    "tpe+asha-auto": {"sampler": {"type": "tpe"}, "pruner": LATER},
    "tpe+median": {"sampler": {"type": "tpe"}, "pruner": {"type": "median"}},
    "tpe+promotion": {"sampler": {"type": "tpe"}, "pruner": {**ASHA, "promote": True}},
    "tpe+promotion-auto": {"sampler": {"type": "tpe"}, "pruner": {**LATER, "promote": True}},
    "auto": {"search": "auto"},
    "gp": {"sampler": {"type": "gp"}},
}
"""Name → keys of the study file."""


def main() -> None:
    """Run what the command line names and print a table."""
    parser = argparse.ArgumentParser(prog="python -m quality", description=__doc__)
    parser.add_argument("strategies", nargs="*", metavar="STRATEGY", help=", ".join(STRATEGIES))
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the measured curves (default: %(default)s)")
    parser.add_argument("--tasks", nargs="+", choices=FAMILIES, default=FAMILIES[:3], help="families of tasks")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=5, help="evaluations of a trial")
    parser.add_argument("--budget", type=float, help="evaluations to spend (default: 40 whole trials)")
    parser.add_argument("--at", type=float, nargs="+", help="costs to report at (default: a quarter, half, all)")
    parser.add_argument("--reach", type=float, default=0.05, help="report the cost to this regret")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--start-cost", type=float, default=0.0, help="of each start of a process, in evaluations")
    parser.add_argument("--noise", type=float, default=0.0, help="in parts of the median's distance from the best")
    parser.add_argument("--no-baseline", action="store_true")
    parser.add_argument("--known-end", action="store_true", help="the budget is one of hours: strategies know its end")
    parser.add_argument(
        "--start-from", choices=("others", "shuffled"), default="", help="earlier studies of the other tasks"
    )
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--each", action="store_true", help="a row for each task")
    options = parser.parse_args()
    if unknown := set(options.strategies) - STRATEGIES.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(STRATEGIES)}")
    budget = options.budget or 40.0 * options.evaluations
    terms = Terms(
        budget,
        options.workers,
        options.start_cost,
        options.noise,
        not options.no_baseline,
        options.known_end,
        options.start_from,
    )
    at = options.at or [budget / 4, budget / 2, budget]
    heads = ["tasks", "strategy", *(f"at {cost:g}" for cost in at), f"cost to {options.reach:g}", "complete", "s"]
    _say(f"`python -m quality {' '.join(sys.argv[1:])}`: {terms}\n", _line(heads), _line(["---"] * len(heads)))
    for family in options.tasks:
        for name in options.strategies or STRATEGIES:
            _Family(options.data, family, options.evaluations).report(name, terms, options, at)


class _Family:
    """One family's tasks, and the rows of the table about it."""

    def __init__(self, data: Path, family: str, evaluations: int) -> None:
        self._where = data, [family], evaluations
        self._names = [task.name for task in tasks(*self._where)]
        self._family = family

    def report(self, strategy: str, terms: Terms, options: argparse.Namespace, at: Sequence[float]) -> None:
        """Run every task from every seed, and print a row."""
        began = time.monotonic()
        jobs = list(product(range(len(self._names)), range(options.seeds)))
        given = [(*self._where, index, strategy, terms, seed) for index, seed in jobs]
        if options.processes > 1:
            with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
                found = list(pool.map(_one, given))
        else:
            found = list(map(_one, given))
        seconds = (time.monotonic() - began) / len(found)
        everything = list(tasks(*self._where))
        rows = {
            task.name: [course for (index, _), course in zip(jobs, found, strict=True) if index == place]
            for place, task in enumerate(everything)
        }
        for task in everything if options.each else ():
            _say(_line([task.name, strategy, *_figures([task], rows, at, options.reach), f"{seconds:.1f}"]))
        _say(_line([self._family, strategy, *_figures(everything, rows, at, options.reach), f"{seconds:.1f}"]))


_LOADED: dict[tuple[Path, str, int], list[Task]] = {}


def _one(job: tuple[Path, list[str], int, int, str, Terms, int]) -> Course:
    folder, names, evaluations, index, strategy, terms, seed = job
    key = folder, names[0], evaluations
    if key not in _LOADED:
        _LOADED[key] = list(tasks(folder, names, evaluations))
    there, sources = _LOADED[key], []
    if terms.start_from:
        sources = [_studied(key, other, seed) for other in range(len(there)) if other != index]
    if terms.start_from == "shuffled":
        mixed = np.random.default_rng(seed).permutation
        sources = [replace(each, trials=[each.trials[at] for at in mixed(len(each.trials))]) for each in sources]
    return run(there[index], STRATEGIES[strategy], terms, seed, sources)


@cache
def _studied(key: tuple[Path, str, int], index: int, seed: int) -> Source:
    task = _LOADED[key][index]
    source = run(task, STRATEGIES["tpe+asha"], Terms(40.0 * task.evaluations), seed + 1000).source
    assert source is not None
    return source


def _figures(
    everything: Sequence[Task], rows: Mapping[str, Sequence[Course]], at: Sequence[float], reach: float
) -> list[str]:
    """Return the cells of these tasks: mean regrets with the standard error over seeds, cost to a regret, trials."""
    courses = {task: rows[task.name] for task in everything}
    regrets = np.array([[[each.regret(task, cost) for cost in at] for each in courses[task]] for task in everything])
    count = regrets.shape[1]
    spread = regrets.var(axis=1, ddof=1) / count if count > 1 else np.full_like(regrets[:, 0], math.nan)
    errors = np.sqrt(spread.sum(axis=0)) / len(everything)
    cells = [f"{mean:.3f} ± {error:.3f}" for mean, error in zip(regrets.mean(axis=(0, 1)), errors, strict=True)]
    medians = [float(np.median([each.cost_to(task, reach) for each in courses[task]])) for task in everything]
    reached = [cost for cost in medians if math.isfinite(cost)]
    typical = f"{math.exp(np.log(reached).mean()):.0f}" if reached else "–"
    flat = [each for group in courses.values() for each in group]
    complete, trials = np.mean([len(each.complete) for each in flat]), np.mean([each.trials for each in flat])
    return [*cells, f"{typical} ({len(reached)} of {len(medians)})", f"{complete:.0f} of {trials:.0f}"]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
