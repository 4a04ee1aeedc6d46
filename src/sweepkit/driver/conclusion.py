"""What follows a study's search: its best trained again over new seeds, a choice, and one look at the test split.

Runs nothing itself: whoever runs the study hands in how trials are driven and how a job is done. Knows no backend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sweepkit.report.confirmation import ORIGIN, Confirmation, tested, tested_file, write
from sweepkit.report.watch import Quiet, Status, Watcher
from sweepkit.study import words
from sweepkit.study.errors import StudyFailed
from sweepkit.study.study import StudyData
from sweepkit.trackers import Courier, Tracker
from sweepkit.trial.trial import Trial, TrialSpec

Drive = Callable[[Courier, Watcher], tuple[Status, str]]
Job = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Means:
    """What a conclusion is made with."""

    drive: Drive
    """Runs the confirmation's trials like any others; returns how that ended."""
    tracker: Tracker
    """Records them, under the study's own run."""
    job: Job | None
    """Does a job in a process of its own; None where the task cannot leave this process."""
    watch: Watcher


def conclude(confirmation: Confirmation, searched: list[Trial], means: Means) -> tuple[Status, str]:
    """Confirm, judge and test; return how it ended and why. What came out is written down beside the trials.

    ``searched`` are the search's trials. An interrupted one goes on when it is called again.
    """
    total, watch = confirmation.enqueue(), means.watch
    courier = Courier(means.tracker, warn=watch.on_note)
    courier.open()
    try:
        status, reason = means.drive(courier, _Lines(watch, confirmation, total))
    finally:
        left = courier.close(None)
        if left:
            watch.on_note(left)
    verdict = confirmation.verdict()
    if status == "done" and verdict.estimates:
        confirmation.save(verdict)
        for line in verdict.sentences():
            watch.on_note(line)
        if confirmation.asked.test == "once":
            _test(confirmation.study, next(row for row in searched if row.number == verdict.chosen), means)
    return status, reason


def _test(study: StudyData, row: Trial, means: Means) -> None:
    """Evaluate the trial's model on the test split and record it; what is recorded is never done again."""
    said = means.watch.on_note
    found = tested(study)
    if found is not None:
        again = "" if found["trial"] == row.number else f"; trial {row.number}, chosen now, is not tested"
        said(
            f"the test split was used on {found['at']}, for trial {found['trial']}{again}: {words.metrics(found['metrics'])}"
        )
        return
    best = study.place.trial(row.number) / "best"
    if means.job is None or not best.exists():
        why = "its task cannot leave this process" if means.job is None else "its checkpoint is gone"
        said(f"trial {row.number} was not evaluated on the test split: {why}")
        return
    console = study.place.folder / "test.log"
    study.place.scratch.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=study.place.scratch) as temporary:
        path = Path(temporary) / "spec.json"
        path.write_text(TrialSpec(number=row.number, hyperparameters=row.params, directory=temporary).to_json())
        answer = means.job("test", console=console, spec=str(path), model=str(best.resolve()))
    if "error" in answer:
        raise StudyFailed(f"trial {row.number} could not be evaluated on the test split: {answer['error']} ({console})")
    found = {"trial": row.number, "at": datetime.now().isoformat(timespec="seconds"), **answer}
    write(tested_file(study.place), found)
    said(
        f"trial {row.number} on the test split ({found['rows']} rows, evaluated this once): {words.metrics(found['metrics'])}"
    )


class _Lines(Quiet):
    """Says each confirmation run's end in a line of the study's own watcher, whose trials these are not.

    What a run says on its way is in its log.
    """

    def __init__(self, watch: Watcher, confirmation: Confirmation, total: int) -> None:
        self._watch = watch
        self._total = total
        done = sum(row.ending.counts for row in confirmation.search.trials())
        self._done = done
        numbers = ", ".join(map(str, confirmation.numbers()))
        if done < total:
            rest = f", {done} done before" if done else ""
            watch.on_note(f"confirming trials {numbers} with new seeds: {words.plural(total, 'run')}{rest}")

    def on_note(self, text: str) -> None:
        """Pass the line on."""
        self._watch.on_note(text)

    def on_trial_end(self, row: Trial) -> None:
        """Say which trial was confirmed, and its value."""
        self._done += 1
        what = words.value(row.value) if row.ending.ranks else f"{row.ending} ({words.first_line(row.cause)})"
        self._watch.on_note(f"confirm {self._done}/{self._total}: trial {row.origin.removeprefix(ORIGIN)} → {what}")


__all__ = ["Means", "conclude"]
