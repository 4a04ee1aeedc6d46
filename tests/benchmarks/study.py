"""Goals 3 and 4: twelve given configurations, three epochs each, on two slots; every tool trains exactly the same.

Knows how the tools are compared; how each is used best stands in ``tools/``.
"""

from __future__ import annotations

import math
import subprocess
import sys
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
    """Compare the study's wall time; quick: four configurations and the first three tools."""
    trials = size.pick(12, 4)
    chosen = list(TOOLS)[: size.pick(len(TOOLS), 3)]
    walls: dict[str, list[float]] = {name: [] for name in chosen}
    starts: dict[str, list[float]] = {name: [] for name in chosen}
    closing: list[float] = []
    limits = []
    for number in range(size.repeats):
        limits.append(best_schedule(tool("plain", trials=trials)["train"]))
        for name in chosen:
            if number % 2 and name not in CLOSE:
                continue
            script, options = TOOLS[name]
            try:
                found = tool(script, trials=trials, **options)
            except (RuntimeError, subprocess.TimeoutExpired) as error:  # costs no other tool its figures
                sys.stderr.write(f"{name}: {error}\n")
                continue
            walls[name].append(found["wall"])
            starts[name].append(found["startup"])
            closing += [found["closing"]] if name == "sweepkit with MLflow" else []
    wall = {name: median(found) for name, found in walls.items() if found}
    start = {name: f"start-up {median(found):.1f} s apart" for name, found in starts.items() if found}
    ours, limit = wall["sweepkit"], median(limits)
    lines = [
        Line(
            "3",
            f"{name} ÷ sweepkit",
            wall[name] / ours,
            "×",
            at_least=least,
            detail=f"{wall[name]:.1f} s, {start[name]}",
        )
        for name, least in WANTED.items()
        if name in wall
    ]
    lines += [Line("3", f"{name} broke", math.nan, "", at_least=0) for name in chosen if name not in wall]
    over = 100 * (ours / limit - 1)
    detail = f"{ours:.2f} s, limit {limit:.2f} s, {start['sweepkit']}"
    lines.append(Line("3", "sweepkit over the limit", over, "%", at_most=10, detail=detail))
    if mlflow := wall.get("sweepkit with MLflow"):
        more = 100 * (mlflow / limit - 1)
        closed = f"from the last trial to the end, the rest's delivery included, {median(closing):.2f} s"
        detail = f"{mlflow:.2f} s, {start['sweepkit with MLflow']}; {closed}"
        lines.append(Line("3", "the same with MLflow over the limit", more, "%", at_most=8, detail=detail))
    if ray := wall.get("sweepkit on Ray"):
        detail = f"{ray:.2f} s, {start['sweepkit on Ray']}"
        lines.append(Line("4", "on Ray over the local backend", 100 * (ray / ours - 1), "%", at_most=20, detail=detail))
    return lines


def best_schedule(seconds: list[float]) -> float:
    """Return the shortest time in which two slots can do this; every way of sharing it out is looked at."""
    whole = sum(seconds)
    sums = {0.0}
    for second in seconds:
        sums |= {other + second for other in sums}
    return min(max(part, whole - part) for part in sums)
