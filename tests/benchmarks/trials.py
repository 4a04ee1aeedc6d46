"""Goals 1 and 2: what one trial costs besides its steps."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from measure import HERE, Line, Size, in_turn, median, project, python, ratios, tool
from studies import digits_study, events

from sweepkit.driver.run import run as run_study
from sweepkit.study.study import StudyData


def run(size: Size) -> list[Line]:
    """Measure a study on one slot whose trials train one and five steps in turn, cold processes, and a plain loop."""
    gaps: list[float] = []
    fixed: list[float] = []
    steps: list[float] = []

    def warm() -> float:
        """Return the seconds of a five-step trial, end to end; note the gaps, and what one-step trials take."""
        with project() as folder:
            study = short_study(folder, [1, 5] * size.pick(8, 5))
            outcome = run_study(study)
            assert outcome.status == "done", outcome
            ends = [events(study, row.number, "finished")[-1] for row in outcome.rows]
            others = [_evaluating_and_saving(study, row.number) for row in outcome.rows]
            first = [float((study.place.trial(row.number) / "first-step").read_text()) for row in outcome.rows]
        gaps.append(median(began - end["at"] for end, began in zip(ends, first[1:], strict=False)))
        own = [end["seconds"] - other for end, other in zip(ends, others, strict=True)]
        steps.append((median(own[3::2]) - median(own[2::2])) / 4)
        fixed.append(median(own[2::2]) - steps[-1])
        return median(after["at"] - before["at"] for before, after in zip(ends[2::2], ends[3::2], strict=True))

    found = in_turn(
        size.repeats,
        cold=cold,
        five=warm,
        loop=lambda: float(median(tool("loop", rounds=size.pick(10, 5), steps=1, evaluate=False)["seconds"])),
    )
    detail = f"{median(found['cold']):.2f} s and {median(found['five']):.3f} s, end to end"
    times = ratios(found["cold"], found["five"])
    step, ours = median(steps), median(fixed)
    costs = ratios([each - step for each in found["loop"]], fixed)
    plain = median(found["loop"]) - step
    beside = (
        f"{1000 * plain:.0f} ms and {1000 * ours:.0f} ms, beside a step of {1000 * step:.0f} ms, evaluation and saving"
    )
    return [
        Line.of("1", "slot free → first step", gaps, "s", at_most=0.3, detail="in a study, MLflow on"),
        Line.of("1", "5-step trial, cold process ÷ here", times, "×", at_least=25, detail=detail),
        Line.of("2", "fixed cost of a Trainer, plain loop ÷ here", costs, "×", at_least=5, detail=beside),
    ]


def _evaluating_and_saving(study: StudyData, number: int) -> float:
    """Return the seconds of a trial's one evaluation, and from its end to the model being saved."""
    evaluated, saved = (events(study, number, kind)[-1] for kind in ("evaluated", "checkpointed"))
    return float(evaluated["metrics"]["eval_runtime"] + saved["at"] - evaluated["at"])


def cold() -> float:
    """Return the seconds of a process that imports, trains five steps and ends."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        python(str(HERE / "tools" / "loop.py"), '{"rounds": 1, "steps": 5, "evaluate": true}', cwd=Path(folder))
        return time.perf_counter() - began


def short_study(folder: Path, steps: list[int]) -> StudyData:
    """Return a study on one slot whose trials train so many steps each, and evaluate at their end."""
    base = digits_study(folder)
    values = base.enqueue[0]
    return digits_study(
        folder,
        space={**base.model_dump()["space"], "max_steps": {"choices": [1, 5]}},
        enqueue=[{**values, "max_steps": count} for count in steps],
        budget={"trials": len(steps)},
        backend={"parallel": 1, "gpus_per_trial": 0, "cpus_per_trial": 1},
        tracking={"uri": "sqlite:///mlflow.db"},
    )
