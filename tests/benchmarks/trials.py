"""Goals 1 and 2: what one trial costs besides its steps."""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path

from measure import HERE, Line, Size, in_turn, median, project, python, tool
from studies import digits_study, events

from sweepkit.run import run as run_study
from sweepkit.study import Study


def run(size: Size) -> list[Line]:
    """Measure trials of a study on one slot, cold processes, and a plain loop, in turn."""
    gaps: list[float] = []
    fixed: list[float] = []
    five: list[float] = []

    def warm(steps: int) -> float:
        with project() as folder:
            study = short_study(folder, steps, trials=12)
            outcome = run_study(study)
            assert outcome.status == "done", outcome
            numbers = range(1, 12)
            if steps == 1:
                fixed.append(median(events(study, number, "finished")[-1]["seconds"] for number in numbers))
                return fixed[-1]
            free = [events(study, number - 1, "finished")[-1]["at"] for number in numbers]
            first = [float((study.place.trial(number) / "first-step").read_text()) for number in numbers]
            gaps.append(median(b - a for a, b in zip(free, first, strict=True)))
            ends = [events(study, number, "finished")[-1]["at"] for number in range(12)]
            five.append(median(b - a for a, b in itertools.pairwise(ends)))
            return five[-1]

    found = in_turn(
        size.repeats,
        cold=cold,
        five=lambda: warm(5),
        loop=lambda: float(median(tool("loop", rounds=size.pick(10, 5))["seconds"])),
        fixed=lambda: warm(1),
    )
    times = found["cold"] / found["five"]
    detail = f"{found['cold']:.2f} s and {found['five']:.3f} s, end to end"
    ratio = found["loop"] / found["fixed"]
    milliseconds = (
        f"{1000 * found['loop']:.0f} ms in a loop, {1000 * found['fixed']:.0f} ms here, model and evaluation too"
    )
    return [
        Line("1", "slot free → first step", median(gaps), "s", at_most=0.3, detail="in a study, MLflow on"),
        Line("1", "5-step trial, cold process ÷ here", times, "×", at_least=25, detail=detail),
        Line("2", "1-step Trainer, fresh loop ÷ here", ratio, "×", at_least=5, detail=milliseconds),
    ]


def cold() -> float:
    """Return the seconds of a process that imports, trains five steps and ends."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        python(str(HERE / "tools" / "loop.py"), '{"rounds": 1, "steps": 5}', cwd=Path(folder))
        return time.perf_counter() - began


def short_study(folder: Path, steps: int, trials: int) -> Study:
    """Return a study on one slot whose trials have so many steps and one evaluation at the end."""
    base = digits_study(folder)
    return digits_study(
        folder,
        training={**base.training, "max_steps": steps, "eval_strategy": "steps", "eval_steps": steps},
        budget={"trials": trials},
        backend={"parallel": 1, "gpus_per_trial": 0, "cpus_per_trial": 1},
    )
