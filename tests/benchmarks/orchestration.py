"""Goal 5: what the driver costs. Trials of one second keep both slots busy; thousands of empty ones cost the same each."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from measure import HERE, Line, Size, median, project

from sweepkit.driver.run import Watcher
from sweepkit.driver.run import run as run_study
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Trial


def run(size: Size) -> list[Line]:
    """Measure both; quick: 16 trials of a second, 80 empty ones."""
    return [*busy(size.pick(200, 16)), *empty(size.pick(5000, 80))]


def noop_study(folder: Path, **keys: Any) -> StudyData:
    """Return a study of trials that train nothing."""
    return StudyData.model_validate(
        {
            "name": "noop",
            "objective": {"metric": "eval_loss", "direction": "minimize"},
            "space": {"learning_rate": {"low": 1e-6, "high": 1.0, "log": True}},
            "sampler": {"type": "random", "seed": 0},
            "checkpoints": {"keep": 1, "every": "never"},
            "backend": {"parallel": 2, "gpus_per_trial": 0, "cpus_per_trial": 1},
            "tracking": {"uri": "none"},
            "training": {"use_cpu": True},
            "task": {"path": f"{HERE / 'noop.py'}:Noop"},
            **keys,
        }
    ).at(folder)


class Clock(Watcher):
    """Notes when the first trial can start and when each one ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_open(self, study: StudyData, rows: list[Trial]) -> None:
        """Note the time."""
        self.began = time.perf_counter()

    def on_trial_end(self, row: Trial) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())


def busy(trials: int) -> list[Line]:
    """Compare trials of one second on two slots, MLflow on, with half as many seconds."""
    with project() as folder:
        task = {"path": f"{HERE / 'noop.py'}:Noop", "seconds": 1.0}
        study = noop_study(folder, task=task, budget={"trials": trials}, tracking={"uri": "sqlite:///mlflow.db"})
        watch = Clock()
        outcome = run_study(study, watch=watch)
    assert outcome.status == "done", outcome
    ideal = trials / 2
    took = watch.ends[-1] - watch.began
    detail = f"{trials} trials: {took:.1f} s, ideal {ideal:.0f} s"
    return [Line("5", "1-second trials over the ideal", 100 * (took / ideal - 1), "%", at_most=10, detail=detail)]


def empty(trials: int) -> list[Line]:
    """Compare the last tenth of many empty trials with the first, in a process of its own, whose memory is looked at."""
    with project() as folder, ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        times, memory = pool.submit(_empty, folder, trials).result()
    tenth = trials // 10
    first, last = median(times[:tenth]), median(times[-tenth:])
    detail = f"{1000 * first:.1f} ms, then {1000 * last:.1f} ms; {trials} trials"
    each = 1024 * (memory[-1] - memory[0]) / trials
    return [
        Line("5", "an empty trial at the end ÷ at the start", last / first, "×", at_most=1.5, detail=detail),
        Line(
            "5",
            "driver's memory for each trial",
            each,
            "kB",
            at_most=20,
            detail=f"{memory[0]:.0f} MB, then {memory[-1]:.0f} MB",
        ),
    ]


def _empty(folder: Path, trials: int) -> tuple[list[float], list[float]]:
    """Let real trial processes do nothing; return how long each took, and the driver's memory after each."""
    clock = Memory()
    outcome = run_study(noop_study(folder, budget={"trials": trials}), watch=clock)
    assert outcome.status == "done", outcome
    ends = [clock.began, *clock.ends]
    return [b - a for a, b in itertools.pairwise(ends)], clock.sizes


class Memory(Clock):
    """Notes how much memory the driver holds as well."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[float] = []

    def on_trial_end(self, row: Trial) -> None:
        """Note time and memory (MB)."""
        super().on_trial_end(row)
        self.sizes.append(psutil.Process().memory_info().rss / 2**20)
