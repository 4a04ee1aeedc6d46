"""Confirms a study's best trials over new seeds, judges them, and evaluates the chosen one on the test split once.

Confirmation runs are trials of a second search, ``<name>/confirm``, in the same storage: the sampler never sees them and
they do not count in ``budget.trials``. Each has a seed that the search never used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from optuna.storages import BaseStorage

from sweepkit.report.answer import Answer, FinalTest, read_test, write_test
from sweepkit.report.rows import CONFIRM
from sweepkit.report.verdict import Candidate, Verdict, judge
from sweepkit.report.watch import Board, Watcher, confirming
from sweepkit.search.proposer import Proposer
from sweepkit.search.search import Search
from sweepkit.study import words
from sweepkit.study.budget import Confirm
from sweepkit.study.errors import StudyFailed
from sweepkit.study.files import first_line
from sweepkit.study.paths import BEST, SPEC
from sweepkit.study.study import PrunerSpec, StudyData
from sweepkit.trial.events import Event
from sweepkit.trial.trial import Trial, TrialSpec

SEEDS_FROM = 1_000_000
"""Distance of the first new seed from the highest one in use; with ``seed_per_trial``, trial N uses the study's seed + N."""


class Confirmation:
    """The confirmation runs of one study; ``proposer`` is its search's."""

    def __init__(self, study: StudyData, search: Search, storage: BaseStorage, proposer: Proposer) -> None:
        assert study.confirm is not None
        self._spec: Confirm = study.confirm
        budget = study.budget.model_copy(update={"target": None})
        plain = study.model_copy(update={"pruner": PrunerSpec(), "budget": budget})
        self.study = plain.at(study.home)
        """The study as its confirmation runs see it: without a pruner and without a target."""
        self._searched = search
        self.search = Search(self.study, storage, proposer, suffix=CONFIRM)

    def enqueue(self) -> int:
        """Add the missing runs, one seed after the other; return the number of all runs, finished ones included."""
        runs = self.search.trials()
        done = {number: len(_runs_of(number, runs)) for number in self.numbers()}
        first, total = _first_seed(self.study, self._searched.trials()), len(runs)
        for index in range(self._spec.seeds):
            for number, count in done.items():
                if count <= index:
                    seed = first + total
                    self.search.confirm(number, self._searched, seed=seed)
                    total += 1
        return total

    def numbers(self) -> list[int]:
        """Return the trials to confirm: the ``top`` best (of the Pareto front, with several goals), then the baseline."""
        answer = Answer(self.study, self._searched.trials())
        numbers, baseline = [row.number for row in answer.top(self._spec.top)], answer.baseline
        return numbers if baseline is None or baseline.number in numbers else [*numbers, baseline.number]

    def verdict(self) -> Verdict:
        """Judge the runs that have ended so far."""
        goal, rows = self.study.objective.goals[0], self._searched.trials()
        answer = Answer(self.study, rows)
        candidates = [
            _candidate(rows[number], self.search.trials(), is_baseline=rows[number] == answer.baseline)
            for number in self.numbers()
        ]
        best = answer.ranked[0].number if answer.ranked else None
        return judge(candidates, metric=goal.metric, direction=goal.direction, best=best)

    def watcher(self, watch: Watcher, total: int) -> Watcher:
        """Return a watcher of the runs that tells ``watch`` when each ends, and announce the runs to it."""
        board = confirming(self.study, self.search.place, total, self.search.trials())
        done = len(board.ended)
        if done < total:
            numbers = ", ".join(map(str, self.numbers()))
            rest = f", {done} already done" if done else ""
            watch.on_note(f"confirming trials {numbers} with new seeds: {words.plural(total, 'run')}{rest}")
        return _Progress(watch, board)


class _Progress(Watcher):
    """Reports each confirmation run's end as a line of the study, and how far all of them are."""

    def __init__(self, watch: Watcher, board: Board) -> None:
        self._watch = watch
        self._board = board
        board.seconds_left()  # begins to look

    def on_note(self, text: str) -> None:
        """Pass the line on."""
        self._watch.on_note(text)

    def on_trial_end(self, row: Trial) -> None:
        """Report which trial was trained again, and its value."""
        self._board.end(row)
        result = words.value(row.value) if row.ending.ranks else f"{row.ending} ({first_line(row.cause)})"
        count, left = f"{len(self._board.ended)}/{self._board.total}", self._board.seconds_left()
        rest = f" · {words.time_left(left)}" if left else ""
        self._watch.on_note(f"confirm {count}: trial {row.confirm_of} → {result}{rest}")
        self._watch.on_confirmation(self._board)

    def on_event(self, event: Event) -> None:
        """Move the run on."""
        self._board.add(event)
        self._watch.on_confirmation(self._board)


def evaluate_once(study: StudyData, row: Trial, job: Callable[..., dict[str, Any]] | None, watch: Watcher) -> None:
    """Evaluate a trial's model on the test split and record it; a study's test split is never evaluated twice.

    ``job`` runs a job in a process of its own; None where the task cannot leave this process. Raises StudyFailed when the
    evaluation fails.
    """
    recorded = read_test(study.place)
    if recorded is not None:
        other = "" if recorded.trial == row.number else f"; trial {row.number}, chosen now, is not evaluated on it"
        watch.on_note(
            f"the test split was used on {recorded.at}, for trial {recorded.trial}{other}: {words.metrics(recorded.metrics)}"
        )
        return
    best = study.place.trial(row.number) / BEST
    if job is None or not best.exists():
        why = "its task cannot leave this process" if job is None else "its checkpoint is gone"
        watch.on_note(f"trial {row.number} was not evaluated on the test split: {why}")
        return
    console = study.place.test_log
    study.place.scratch.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=study.place.scratch) as temporary:
        path = Path(temporary) / SPEC
        spec = TrialSpec(number=row.number, hyperparameters=row.params, directory=temporary, drawn=row.drawn)
        path.write_text(spec.to_json())
        answer = job("test", console=console, spec=str(path), model=str(best.resolve()))
    if "error" in answer:
        raise StudyFailed(f"trial {row.number} could not be evaluated on the test split: {answer['error']} ({console})")
    write_test(study.place, FinalTest(row.number, datetime.now().isoformat(timespec="seconds"), **answer))
    metrics = words.metrics(answer["metrics"])
    watch.on_note(f"trial {row.number} on the test split ({answer['rows']} rows, evaluated only once): {metrics}")


def _runs_of(number: int, runs: Iterable[Trial]) -> list[Trial]:
    return [run for run in runs if run.confirm_of == number]


def _candidate(row: Trial, runs: Iterable[Trial], *, is_baseline: bool) -> Candidate:
    ended = [run for run in _runs_of(row.number, runs) if run.ending.counts]
    values = [run.value for run in ended if run.ending.ranks and run.value is not None and math.isfinite(run.value)]
    return Candidate(
        number=row.number,
        values=tuple(values),
        baseline=is_baseline,
        searched=row.value if row.ending.ranks else None,
        lost=len(ended) - len(values),
    )


def _first_seed(study: StudyData, rows: Iterable[Trial]) -> int:
    """Return the first new seed: above all that the search used or may still use."""
    used = (row.params.get("seed") for row in rows)
    return max([study.seed, *(seed for seed in used if isinstance(seed, int))]) + SEEDS_FROM
