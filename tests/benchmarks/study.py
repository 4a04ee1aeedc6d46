"""Goals 3 and 4: twelve given configurations, three epochs each, on two slots; every tool trains exactly the same.

Knows how the tools are compared; how each is used best stands in ``tools/``.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from measure import Line, Size, median, tool

TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "sweepkit": ("ours", {"backend": "optuna"}),
    "sweepkit with MLflow": ("ours", {"backend": "optuna", "tracking": "sqlite:///mlflow.db"}),
    "search on Optuna": ("trainer_optuna", {}),
    "search on Ray": ("trainer_ray", {}),
    "sweepkit on Ray": ("ours", {"backend": "ray"}),
    "Optuna loop": ("optuna_loop", {}),
    "Ray function": ("ray_function", {}),
    "search on Ray, reuse_actors": ("trainer_ray", {"reuse": True}),
}
WANTED = {
    "search on Optuna": 1.8,
    "Optuna loop": 1.0,
    "Ray function": 1.0,
    "search on Ray": 3.5,
    "search on Ray, reuse_actors": 1.0,
}
"""Tool → how many times as long it has to take."""
CLOSE = ("sweepkit", "sweepkit with MLflow", "sweepkit on Ray")
"""Compared to a few per cent, and so measured in every round; the others, whose ratios are far from 1, in every second."""


def run(size: Size) -> list[Line]:
    """Compare the study's wall time; quick: four configurations and the first three tools.

    What is compared was measured in one round: within minutes a machine's clock changes by more than a few per cent.
    """
    trials = size.pick(12, 4)
    chosen = list(TOOLS)[: size.pick(len(TOOLS), 3)]
    rounds: list[dict[str, dict[str, Any]]] = []
    for number in range(size.repeats):
        limit = best_schedule(tool("plain", trials=trials)["train"])
        rounds.append({"limit": {"wall": limit}})
        for name in chosen:
            if number % 2 and name not in CLOSE:
                continue
            script, options = TOOLS[name]
            try:
                rounds[-1][name] = tool(script, trials=trials, **options)
            except (RuntimeError, subprocess.TimeoutExpired) as error:  # costs no other tool its figures
                sys.stderr.write(f"{name}: {error}\n")
    lines = [_times(rounds, name, least) for name, least in WANTED.items() if name in chosen]
    lines.append(_over(rounds, "sweepkit over the limit", "sweepkit", "limit", at_most=10))
    if "sweepkit with MLflow" in chosen:
        closing = [each["sweepkit with MLflow"]["closing"] for each in _with(rounds, "sweepkit with MLflow")]
        rest = "; from the last trial to the end, the rest's delivery included, "
        more = f"{rest}{median(closing):.2f} s" if closing else ""
        what = "the same with MLflow over the limit"
        lines.append(_over(rounds, what, "sweepkit with MLflow", "limit", at_most=8, more=more))
    if "sweepkit on Ray" in chosen:
        lines.append(
            _over(rounds, "on Ray over the local backend", "sweepkit on Ray", "sweepkit", at_most=20, goal="4")
        )
    return lines + [Line("3", f"{name} broke", math.nan, "", at_least=0) for name in chosen if not _with(rounds, name)]


Rounds = Sequence[Mapping[str, Mapping[str, Any]]]


def _with(rounds: Rounds, *names: str) -> Rounds:
    """Return the rounds in which all of these were measured."""
    return [each for each in rounds if all(name in each for name in names)]


def _ratios(rounds: Rounds, name: str, to: str) -> list[float]:
    return [each[name]["wall"] / each[to]["wall"] for each in _with(rounds, name, to)] or [math.nan]


def _walls(rounds: Rounds, name: str) -> str:
    """Return the median wall time, and that of the start-up where it is known."""
    found = [each[name] for each in _with(rounds, name)]
    if not found:
        return "not measured"
    startup = [each["startup"] for each in found if "startup" in each]
    apart = f", start-up {median(startup):.1f} s apart" if startup else ""
    return f"{median(each['wall'] for each in found):.2f} s{apart}"


def _times(rounds: Rounds, name: str, at_least: float) -> Line:
    """Return how many times as long as sweepkit a tool takes."""
    ratios = _ratios(rounds, name, "sweepkit")
    return Line.of("3", f"{name} ÷ sweepkit", ratios, "×", at_least=at_least, detail=_walls(rounds, name))


def _over(rounds: Rounds, what: str, name: str, to: str, *, at_most: float, goal: str = "3", more: str = "") -> Line:
    """Return by how many per cent one takes longer than the other."""
    parts = [100 * (ratio - 1) for ratio in _ratios(rounds, name, to)]
    detail = f"{_walls(rounds, name)}, against {_walls(rounds, to)}{more}"
    return Line.of(goal, what, parts, "%", at_most=at_most, detail=detail)


def best_schedule(seconds: list[float]) -> float:
    """Return the shortest time in which two slots can do this; every way of sharing it out is looked at."""
    whole = sum(seconds)
    sums = {0.0}
    for second in seconds:
        sums |= {other + second for other in sums}
    return min(max(part, whole - part) for part in sums)
