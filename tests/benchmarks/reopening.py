"""Goal 9: a study of thousands of finished trials goes on at once, and its trials cost what the first ones did."""

from __future__ import annotations

import time
from pathlib import Path

from measure import Line, Size, project

from sweepkit.check import known_values
from sweepkit.search.proposer import Proposer
from sweepkit.search.search import Search
from sweepkit.search.storage import open_storage
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Finished
from sweepkit.trial.log import TrialLog


def run(size: Size) -> list[Line]:
    """Open a study of finished trials, ask and report, under several samplers and pruners; quick: 300 instead of 10,000."""
    trials = size.pick(10_000, 300)
    lines = []
    with project() as folder:
        finished_study(folder, trials)
        for sampler in ("random", "tpe"):
            found = [reopen(folder, trials, sampler) for _ in range(size.repeats)]
            lines.append(
                Line.of("9", f"reopen and ask ({sampler})", found, "s", at_most=1.5, detail=f"{trials} trials")
            )
        for pruner in ("none", "asha", "median", "hyperband"):
            asked, reported = costs(folder, trials, pruner)
            detail = f"CPU, {trials} trials"
            lines.append(Line.of("9", f"ask (tpe, {pruner})", asked, "ms", at_most=15.0, detail=detail))
            lines.append(Line.of("9", f"report ({pruner})", reported, "ms", at_most=1.0, detail=detail))
    return lines


def costs(folder: Path, trials: int, pruner: str) -> tuple[list[float], list[float]]:
    """Return the milliseconds of CPU of an ask and of a report, of one trial at a time; they stay in the study."""
    study = many(folder, trials + 100, "tpe", pruner)
    search = Search(study, open_storage(study.place, study), Proposer(study, known_values(study)))
    asked, reported = [], []
    for turn in range(11):
        began = time.process_time()
        trial = search.ask()
        asked.append(time.process_time() - began)
        assert trial is not None
        for number in (1, 2):
            values = (turn / number,)
            event = Evaluated(
                trial=trial.number, at=0.0, number=number, step=number, epoch=number, metrics={}, values=values
            )
            began = time.process_time()
            search.report(event)
            reported.append(time.process_time() - began)
        search.tell(Finished(trial=trial.number, at=0.0, ending="complete", step=2, seconds=1.0, values=values))
    asked, reported = asked[1:], reported[2:]  # the first ones read the whole study
    return [1000 * seconds for seconds in asked], [1000 * seconds for seconds in reported]


def reopen(folder: Path, trials: int, sampler: str) -> float:
    """Return the seconds from opening the storage to the next trial."""
    study = many(folder, trials + 100, sampler)
    began = time.perf_counter()
    search = Search(study, open_storage(study.place, study), Proposer(study, known_values(study)))
    assert search.ask() is not None
    return time.perf_counter() - began


def many(folder: Path, trials: int, sampler: str = "random", pruner: str = "none") -> StudyData:
    """Return a study of two parameters with room for so many trials."""
    from orchestration import noop_study

    space = {
        "learning_rate": {"low": 1e-6, "high": 1.0, "log": True},
        "weight_decay": {"low": 0.0, "high": 0.3},
    }
    return noop_study(
        folder, space=space, budget={"trials": trials}, sampler={"type": sampler, "seed": 0}, pruner={"type": pruner}
    )


def finished_study(folder: Path, trials: int) -> StudyData:
    """Write a study of so many finished trials of three evaluations, as a driver leaves it; return it."""
    from sweepkit.study.identity import identify

    study = many(folder, trials)
    identify(study.place, study)
    search = Search(study, open_storage(study.place, study), Proposer(study, known_values(study)))
    for _ in range(trials):
        asked = search.ask()
        assert asked is not None
        rate = float(asked.params["learning_rate"])
        values = [(rate / number,) for number in (1, 2, 3)]
        events: list[Evaluated | Finished] = [
            Evaluated(
                trial=asked.number,
                at=time.time(),
                number=number,
                step=10 * number,
                epoch=number,
                metrics={"eval_loss": value[0]},
                values=value,
            )
            for number, value in enumerate(values, 1)
        ]
        end = Finished(trial=asked.number, at=time.time(), ending="complete", step=30, seconds=1.0, values=values[-1])
        events.append(end)
        with TrialLog(study.place.trial(asked.number)) as log:
            for event in events:
                log.append(event)
        for event in events:
            if isinstance(event, Evaluated):
                search.report(event)
            else:
                search.tell(event)
    return study
