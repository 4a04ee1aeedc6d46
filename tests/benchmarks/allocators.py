"""What another way to allocate memory makes of a worker: its memory, and its steps. Only where it is named, see the README."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from pathlib import Path

from data import text_study, weigh
from measure import Line, Size, median, project

from sweepkit.backends.local.executor import Executor
from sweepkit.backends.slots import Slot
from sweepkit.check import known_values
from sweepkit.driver.prepare import prepare
from sweepkit.report.watch import Watcher
from sweepkit.study.paths import MEASURED
from sweepkit.trial.trial import TrialSpec

USUAL = "as it is"
WAYS = {
    USUAL: {},
    "mmap from 1 MB": {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)},
    "mmap from 2 MB": {"MALLOC_MMAP_THRESHOLD_": str(2 << 20)},
    "nothing given back": {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(4 << 30)},
}
"""Way → environment of the warm process, which its trials inherit."""
PRELOADED = ("jemalloc", "mimalloc", "tcmalloc_minimal")
"""Libraries that are tried where they are installed."""


def run(size: Size) -> list[Line]:
    """Measure all ways in turn, as often as said; steps are compared within a turn, so that a slow minute counts for all."""
    ways = WAYS | {name: {"LD_PRELOAD": library} for name in PRELOADED if (library := find_library(name))}
    memory: dict[str, list[float]] = {way: [] for way in ways}
    steps: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(size.repeats):
        for way in list(ways)[:: -1 if turn % 2 else 1]:
            with _environment(ways[way]), project() as folder:
                extra, own, _ = weigh(text_study(folder, "weighed", large=True, steps=100_000), 2)
                memory[way].append(extra - own)
                steps[way].append(_step_seconds(folder))
    lines = []
    for way in ways:
        slower = [100 * (there / usual - 1) for there, usual in zip(steps[way], steps[USUAL], strict=True)]
        spread = f"{min(memory[way]):.0f} to {max(memory[way]):.0f} MB in {size.repeats} turns"
        lines.append(Line("7", f"{way}: an extra worker above its own", median(memory[way]), "MB", detail=spread))
        spread = f"{min(slower):.1f} to {max(slower):.1f} %; a step {1000 * median(steps[way]):.1f} ms"
        if way != USUAL:
            lines.append(Line("7", f"{way}: its steps are slower by", median(slower), "%", at_most=2, detail=spread))
    return lines


@contextmanager
def _environment(more: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _step_seconds(folder: Path) -> float:
    """Return the mean seconds of an optimizer step over five seconds, in a trial that is alone."""
    study = text_study(folder, "timed", large=True, weighed=False, steps=100_000)
    with Executor(study, [Slot(threads=1)], log=study.place.folder / "warm.log") as executor:
        prepare(study, known_values(study), executor, Watcher())
        trial = study.place.trial(0)
        spec = TrialSpec(number=0, hyperparameters={"learning_rate": 1e-4}, directory=str(trial))
        executor.start(spec, job="measure", worst=False)
        end = time.monotonic() + 300
        while executor.running:
            assert time.monotonic() < end, (trial / "console.log").read_text()
            executor.poll(0.5)
        return float(json.loads((trial / MEASURED).read_text())["step_seconds"])
