"""Goal 7: data is tokenised once, whoever asks, and lies in memory once, however many trials read it."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

from measure import HERE, Line, Size, median, project

from sweepkit.executor import Executor
from sweepkit.run import run as run_study
from sweepkit.slots import Slot
from sweepkit.study import Study
from sweepkit.trial import TrialSpec


def run(size: Size) -> list[Line]:
    """Count the tokenisings of two studies on four slots, and weigh workers of one, two and three trials."""
    with project() as folder:
        for name in ("first", "second"):
            outcome = run_study(text_study(folder, name))
            assert outcome.status == "done", outcome
        times = len((folder / "tokenised").read_text().splitlines())
        rows = text_study(folder, "first").model_dump()["budget"]["trials"]
        extra, own = weigh(text_study(folder, "weighed", large=True, steps=100_000), size.pick(3, 2))
    detail = f"two studies of {rows} trials on 4 slots"
    weight = f"own model, gradients and optimizer {own:.0f} MB"
    return [
        Line("7", "times the data was tokenised", times, "", at_most=1, detail=detail),
        Line("7", "memory of an extra worker above its own", extra - own, "MB", at_most=150, detail=weight),
    ]


def text_study(folder: Path, name: str, **options: Any) -> Study:
    """Return a study of a small language model."""
    steps = options.pop("steps", 2)
    return Study.model_validate(
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


def weigh(study: Study, workers: int) -> tuple[float, float]:
    """Return the MB that a further trial adds to all processes together, and those of its weights, gradients and moments."""
    folder = study.place.folder
    totals = []
    with Executor(study, [Slot(threads=1)] * workers, log=folder / "warm.log") as executor:
        prepared = executor.job("prepare", console=folder / "prepare.log")
        assert "error" not in prepared, prepared
        pids = [executor.warm_pid]
        for number in range(workers):
            place = folder / "trials" / f"{number:04d}"
            executor.start(TrialSpec(number=number, hyperparameters={"learning_rate": 1e-4}, directory=str(place)))
            note = place / "third-step"
            end = time.monotonic() + 120
            while not note.exists():
                assert time.monotonic() < end, (place / "console.log").read_text()
                executor.poll(0.1)
            pid, weights = note.read_text().split()
            pids.append(int(pid))
            totals.append(sum(map(proportional, pids)))
    more = [b - a for a, b in itertools.pairwise(totals)]
    return median(more), 4 * float(weights)


def proportional(pid: int) -> float:
    """Return a process's share of memory (PSS) in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{pid}/smaps_rollup has no Pss")
