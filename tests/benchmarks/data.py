"""Goal 7: data is tokenised once, whoever asks, and lies in memory once, however many trials read it."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

from measure import HERE, Line, Size, median, project

from sweepkit.backends.local.executor import Executor
from sweepkit.backends.slots import Slot
from sweepkit.check import known_values
from sweepkit.driver.prepare import prepare
from sweepkit.driver.run import run as run_study
from sweepkit.report.watch import Watcher
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import TrialSpec


def run(size: Size) -> list[Line]:
    """Count the tokenisings of two studies on four slots, and weigh workers of one, two and three trials."""
    with project() as folder:
        for name in ("first", "second"):
            outcome = run_study(text_study(folder, name))
            assert outcome.status == "done", outcome
        times = len((folder / "tokenised").read_text().splitlines())
        rows = text_study(folder, "first").model_dump()["budget"]["trials"]
        extra, own, kept = weigh(text_study(folder, "weighed", large=True, steps=100_000), size.pick(3, 2))
    detail = f"two studies of {rows} trials on 4 slots"
    weight = (
        f"own model, gradients and optimizer {own:.0f} MB; what malloc keeps free for the next step {kept:.0f} MB of it"
    )
    return [
        Line("7", "times the data was tokenised", times, "", at_most=1, detail=detail),
        Line("7", "memory of an extra worker above its own", extra - own, "MB", at_most=150, detail=weight),
    ]


def text_study(folder: Path, name: str, **options: Any) -> StudyData:
    """Return a study of a small language model."""
    steps = options.pop("steps", 2)
    return StudyData.model_validate(
        {
            "name": name,
            "task": {"path": f"{HERE / 'text.py'}:Words", **options},
            "training": {
                "use_cpu": True,
                "max_steps": steps,
                "eval_strategy": "steps",
                "eval_steps": steps,
                "per_device_train_batch_size": 4,
            },
            "objective": {"metric": "eval_loss", "direction": "minimize"},
            "space": {"learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}},
            "sampler": {"type": "random", "seed": 0},
            "budget": {"trials": 8},
            "checkpoints": {"every": "never"},
            "backend": {"parallel": 4, "gpus_per_trial": 0},
            "tracking": {"uri": "none"},
        }
    ).at(folder)


def weigh(study: StudyData, workers: int) -> tuple[float, float, float]:
    """Return the MB that a further trial adds to all processes together, those of its weights, gradients and moments, and
    those that its malloc keeps free.

    All are the warm process, the trials and what is forked ahead for the next: memory that processes share counts for each
    of them by its part, so that one left out would look like memory of the trial that comes next. The warm process is
    prepared as before a study's first trial, with what the trials turned out to import.
    """
    place = study.place
    totals = []
    with Executor(study, [Slot(threads=1)] * workers, log=place.folder / "warm.log") as executor:
        prepare(study, known_values(study), executor, Watcher())
        for number in range(workers):
            folder = place.trial(number)
            executor.start(TrialSpec(number=number, hyperparameters={"learning_rate": 1e-4}, directory=str(folder)))
            note = folder / "third-step"
            end = time.monotonic() + 120
            while not note.exists():
                assert time.monotonic() < end, (folder / "console.log").read_text()
                executor.poll(0.1)
            _, weights, kept = note.read_text().split()
            totals.append(sum(map(proportional, [executor.warm_pid, *children(executor.warm_pid)])))
    more = [b - a for a, b in itertools.pairwise(totals)]
    return median(more), 4 * float(weights), float(kept)


def children(pid: int) -> list[int]:
    """Return the processes that a process started and that live."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def proportional(pid: int) -> float:
    """Return a process's share of memory (PSS) in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{pid}/smaps_rollup has no Pss")
