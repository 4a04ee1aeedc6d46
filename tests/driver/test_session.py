"""The session decides what follows an event: answers, retries, the end of the study. No process is started."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage

from making import toy_study
from sweepkit.check import check
from sweepkit.driver import session as sessions
from sweepkit.driver.clock import Clock
from sweepkit.driver.confirm import Confirmation
from sweepkit.driver.session import Setup, StudySession
from sweepkit.report.watch import Watcher
from sweepkit.search.proposer import Proposer
from sweepkit.search.search import Search
from sweepkit.search.strategy import TimeLeft
from sweepkit.study.errors import StudyFailed
from sweepkit.study.paths import LAST, Place
from sweepkit.trackers import tracker_of
from sweepkit.trackers.courier import Courier
from sweepkit.trial.events import Evaluated, Finished, Started
from sweepkit.trial.trial import Ending, Reason, TrialSpec


class Notes(Watcher):
    """Keeps what is said of the study."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def on_note(self, text: str) -> None:
        self.said.append(text)


def session_of(
    project: Path, *, storage: InMemoryStorage | None = None, watch: Watcher | None = None, **keys: Any
) -> StudySession:
    """Return the session of a toy study whose storage lies in memory: a new one, or an earlier driver's."""
    checked = check(toy_study(project, **keys))
    study = checked.study
    study.place.folder.mkdir(parents=True, exist_ok=True)
    search = Search(study, storage or InMemoryStorage(), Proposer(study, checked.known))
    courier = Courier(tracker_of(study), warn=print)
    return StudySession(study, search, courier=courier, watch=watch or Watcher(), setup=Setup(gpus=1, slots=1))


def started(session: StudySession) -> TrialSpec:
    spec = session.next()
    assert spec is not None
    session.handle(Started(trial=spec.number, at=0.0, attempt=spec.attempt))
    return spec


def evaluated(number: int, trial: int = 0) -> Evaluated:
    metrics = {"eval_score": 0.5}
    return Evaluated(
        trial=trial, at=0.0, number=number, step=number, epoch=float(number), metrics=metrics, values=(0.5,)
    )


def failed(trial: int, reason: Reason, cause: str = "it broke") -> Finished:
    return Finished(trial=trial, at=0.0, ending=Ending.failed, reason=reason, cause=cause)


def test_an_interrupted_study_stops_running_trials_and_starts_no_more(project: Path) -> None:
    session = session_of(project)
    spec = started(session)
    assert session.handle(evaluated(1)) == "continue"
    session.interrupt()
    assert (session.handle(evaluated(2)), session.next(), session.killing) == ("stop", None, False)
    session.interrupt()
    assert session.killing
    session.handle(failed(spec.number, Reason.signal))
    assert session._search.row(spec.number).ending is Ending.stopped, "a killed trial is resumed later"


def test_a_trial_at_which_driver_after_driver_dies_before_it_gets_further_fails(project: Path) -> None:
    storage = InMemoryStorage()
    session = session_of(project, storage=storage)
    number = started(session).number
    session.handle(evaluated(1))
    for attempt in range(sessions.ABANDONED):
        session = session_of(project, storage=storage)
        spec = started(session)
        assert (spec.number, spec.attempt) == (number, attempt + 2)
    session = session_of(project, storage=storage)
    assert started(session).number == number + 1
    row = session._search.row(number)
    assert (row.ending, row.reason) == (Ending.failed, Reason.driver_lost)
    assert row.cause == "its driver died 5 times while it ran, without any progress in between"


def test_an_interruption_is_the_reason_whatever_else_ended_the_study(project: Path) -> None:
    session = session_of(project, budget={"trials": 1})
    started(session)
    assert (session.next(), session.reason) == (None, "all trials of the budget are done")
    session.interrupt()
    assert session.reason == "interrupted"


@pytest.mark.parametrize(
    ("reason", "attempts"), [(Reason.crash, 3), (Reason.deadline, 1), (Reason.lost, sessions.LOSSES + 1)]
)
def test_how_often_a_failed_trial_is_retried_depends_on_the_reason(
    project: Path, reason: Reason, attempts: int
) -> None:
    session = session_of(project, retries={"crash": 2})
    numbers = []
    for _ in range(attempts + 1):
        numbers.append(started(session).number)
        session.handle(failed(numbers[-1], reason))
    assert numbers == [0] * attempts + [1]


def test_a_resumed_trial_knows_the_evaluations_up_to_its_checkpoint_only(project: Path) -> None:
    session = session_of(project, retries={"crash": 1})
    started(session)
    for number in (1, 2, 3):
        session.handle(evaluated(number))
    checkpoint = session._study.place.trial(0) / LAST / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    session.handle(failed(0, Reason.crash))
    resumed = started(session)
    assert (resumed.number, resumed.resume_from) == (0, str(checkpoint))
    assert [event["step"] for event in resumed.evaluations] == [1, 2]


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"[]\n", b'{"kind":"later"}\n', b"\xff\xfe\n", None])
def test_a_trial_whose_log_lost_what_the_storage_knows_starts_over(project: Path, content: bytes | None) -> None:
    storage = InMemoryStorage()
    session = session_of(project, storage=storage)
    started(session)
    for number in (1, 2):
        session.handle(evaluated(number))
    session._log(0).close()
    folder = session._study.place.trial(0)
    (folder / LAST / "checkpoint-2").mkdir(parents=True)
    log = folder / "events.jsonl"
    log.unlink() if content is None else log.write_bytes(content)
    notes = Notes()
    session = session_of(project, storage=storage, watch=notes)
    again = started(session)
    assert (again.number, again.resume_from, again.evaluations) == (0, None, ())
    [note] = notes.said
    assert note.startswith("trial 0 starts over: ") and str(log) in note
    kept = [path.read_bytes() for path in folder.glob("events.jsonl.damaged-*")]
    assert kept == ([] if content is None else [content])
    session.handle(evaluated(1))
    third = started(session_of(project, storage=storage, watch=notes))
    assert third.attempt == 2 or content is None


def test_a_trial_that_ran_out_of_memory_beside_others_keeps_its_batch(project: Path) -> None:
    notes = Notes()
    session = session_of(project, watch=notes, retries={"out_of_memory": 1})
    session._setup = Setup(gpus=0.5, slots=2, splits_batches=True)
    ends = {"at": 0.0, "ending": Ending.infeasible, "reason": Reason.out_of_memory, "cause": "out of memory: CUDA"}
    divisors = [started(session).micro_batch_divisor]
    for neighbours in (1, 1, 0):
        session.handle(Finished(trial=0, neighbours=neighbours, **ends))
        spec = started(session)
        assert spec.number == 0
        divisors.append(spec.micro_batch_divisor)
    assert divisors == [1, 1, 1, 2]
    assert notes.said == ["trial 0 is retried with fewer trials beside it on its GPU: out of memory: CUDA"] * 2
    session.handle(Finished(trial=0, **ends))
    assert session._search.row(0).ending is Ending.infeasible


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"seconds": -1}', '{"seconds": NaN}', "\0\0", None])
def test_time_spent_that_was_lost_is_the_time_in_which_trials_ran(project: Path, content: str | None) -> None:
    session = session_of(project)
    for number in (0, 1):
        session.next()
        session.handle(Started(trial=number, at=1000.0 + 50 * number))
        session.handle(evaluated(1, number).__class__(**{**vars(evaluated(1, number)), "at": 1100.0 + 50 * number}))
    place = session._study.place
    place.spent_json.unlink() if content is None else place.spent_json.write_text(content)
    clock = Clock(place, slots=2)
    assert clock.seconds == pytest.approx(150, abs=1), "the two ran from 1000 to 1100 and from 1050 to 1150"
    clock.save()
    assert json.loads(place.spent_json.read_text())["slot_seconds"] is None


def test_a_trials_folder_that_is_a_link_is_refused_and_what_it_leads_to_stays(project: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / LAST / "checkpoint-1").mkdir(parents=True)
    session = session_of(project)
    trials = session._study.place.trials
    trials.mkdir(exist_ok=True)
    (trials / "0000").symlink_to(elsewhere)
    with pytest.raises(StudyFailed, match="0000 is a link, or lies behind one"):
        session.next()
    assert [path.name for path in elsewhere.iterdir()] == [LAST]


def test_trials_that_fail_with_the_same_cause_stop_the_study_and_others_do_not(project: Path) -> None:
    session = session_of(project, retries={"crash": 0}, budget={"trials": 9})
    for number, cause in enumerate(["a", "a", "b: 3 rows", "b: 16 rows"]):
        started(session)
        session.handle(failed(number, Reason.crash, cause))
    started(session)
    with pytest.raises(StudyFailed, match="3 trials in a row failed with the same cause: b: 5e-4 rows"):
        session.handle(failed(4, Reason.crash, "b: 5e-4 rows"))


def test_a_full_disk_stops_the_study_and_the_trial_is_not_recorded_as_failed(project: Path) -> None:
    session = session_of(project)
    started(session)
    with pytest.raises(StudyFailed, match="free some space"):
        session.handle(failed(0, Reason.disk_full, "no space left on the disk"))
    assert session._search.row(0).ending is Ending.running


def use_hours(session: StudySession) -> None:
    place = session._study.place
    place.spent_json.write_text(json.dumps({"seconds": 7200.0}))
    session._limits._clock = Clock(place)


def use_gpu_hours(session: StudySession) -> None:
    session._limits._ended_seconds = 7200.0


@pytest.mark.parametrize(
    ("budget", "use", "reason"),
    [
        ({"hours": 2.0}, use_hours, "budget.hours: 2 h used up"),
        ({"gpu_hours": 2.0}, use_gpu_hours, "budget.gpu_hours: 2 GPU-hours used up"),
    ],
)
def test_a_budget_that_is_used_up_starts_no_more_and_stops_running_trials_after_the_grace(
    project: Path, budget: dict[str, float], use: Callable[[StudySession], None], reason: str
) -> None:
    for grace, answer in ((60.0, "continue"), (0.0, "stop")):
        session = session_of(project, budget={"trials": 9, **budget, "grace_minutes": grace})
        started(session)
        use(session)
        session.tick()
        assert (session.next(), session.reason, session.handle(evaluated(1))) == (None, reason, answer)
        (project / "runs/toy/spent.json").unlink(missing_ok=True)
        (project / "runs/toy/trials/0000/events.jsonl").unlink()


@pytest.mark.parametrize(
    ("hours", "spent", "kept"),
    [
        (2.0, 4000.0, ""),
        (2.0, 4500.0, "the last 50 min 00 s of 2 h are reserved for confirmation"),
        (1.0, 1900.0, "the last 30 min 00 s"),
    ],
)
def test_the_search_leaves_time_to_confirm(project: Path, hours: float, spent: float, kept: str) -> None:
    keys = {
        "budget": {"trials": 9, "hours": hours},
        "confirm": {"top": 2, "seeds": 3},
        "baseline": {"learning_rate": 1e-3},
    }
    session = session_of(project, **keys)
    for seconds in (200.0, 400.0):  # 9 runs of 300 seconds, and as long for the last trials
        session._limits.end(seconds, Ending.complete)
    place = session._study.place
    place.spent_json.write_text(json.dumps({"seconds": spent}))
    session._limits._clock = Clock(place)
    assert bool(session.next()) == (not kept) and kept in session.reason
    assert session._limits.kept_to_confirm(1e9) == 3000.0
    session._search.proposes = False  # the confirmation's own session
    assert session._limits_by(session._clock).kept_to_confirm(1e9) == 0.0


def test_what_a_budget_of_time_leaves(project: Path) -> None:
    session = session_of(project, budget={"trials": 9, "hours": 2.0, "gpu_hours": 3.0, "grace_minutes": 2.0})
    for gpus, together in ((0.0, math.inf), (1.0, 3 * 3600), (0.5, 6 * 3600)):
        session._setup = Setup(gpus=gpus, slots=2)
        session._limits = session._limits_by(session._clock)
        assert session._limits.left() == TimeLeft(pytest.approx(7200.0, abs=5), 120.0, together=together)
    session._limits.end(1000.0, Ending.pruned)
    assert session._limits.too_short().startswith("budget.hours: the rest of 2 h")
    session._limits.end(14000.0, Ending.pruned)
    assert session._limits.too_short().startswith("budget.gpu_hours: the rest of 3 GPU-hours")
    session._limits.reopen(14000.0)
    assert session._limits.left() == TimeLeft(pytest.approx(7200.0, abs=5), 120.0, together=3 * 3600 / 0.5 - 1000)
    use_hours(session)
    session.tick()
    found = session._time_left()
    assert found is not None and found.to_start == 0 and 110 < found.grace <= 120, "the grace counts from that moment"


def test_hours_are_divided_by_the_drivers_that_use_them_up(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of(project, budget={"hours": 2.0})
    monkeypatch.setattr(type(session._study), "several_drivers", True)
    monkeypatch.setattr("sweepkit.driver.limits.lock_owners", lambda place: ["one", "two"])
    left = session._limits.left()
    assert left is not None and left.to_start == pytest.approx(3600, abs=5)


def test_before_a_training_has_ended_the_time_to_confirm_is_what_one_is_expected_to_take(project: Path) -> None:
    session = session_of(project, budget={"hours": 10.0, "grace_minutes": 1.0}, confirm={"top": 2, "seeds": 3})
    assert session._limits.kept_to_confirm(36000.0) == 0.0
    assert session._limits.kept_to_confirm(36000.0, 100.0) == 6 * 100.0 + 60.0
    left = session._limits.left(100.0)
    assert left is not None and left.to_start == pytest.approx(36000 - 660, abs=5)


def test_time_spent_is_summed_over_resumes_and_drivers(project: Path) -> None:
    place = Place.of("toy", project)
    path = place.spent_json
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"seconds": 100.0, "slot_seconds": 200.0}))
    one, other = Clock(place, slots=2), Clock(place, slots=2)
    one._since -= 10
    other._since -= 5
    one.save()
    other.save()
    found = json.loads(path.read_text())
    assert (round(found["seconds"]), round(found["slot_seconds"])) == (115, 230)
    assert Clock(place).seconds == pytest.approx(115, abs=1)


@pytest.mark.parametrize("seed_per_trial", [False, True])
def test_every_confirmation_run_has_a_seed_of_its_own_that_the_search_never_used(
    project: Path, seed_per_trial: bool
) -> None:
    keys = {"confirm": {"top": 2, "seeds": 3}, "budget": {"trials": 3}, "seed_per_trial": seed_per_trial}
    checked = check(toy_study(project, training={"seed": 7}, **keys))
    study, storage = checked.study, InMemoryStorage()
    search = Search(study, storage, Proposer(study, checked.known))
    while (asked := search.ask()) is not None:
        search.tell(Finished(trial=asked.number, at=0.0, ending=Ending.complete, values=(float(asked.number),)))
    confirmation = Confirmation(study, search, storage, Proposer(study, checked.known))
    assert (confirmation.enqueue(), confirmation.enqueue()) == (6, 6), "runs that are there are not added again"
    runs = list(iter(confirmation.search.ask, None))
    seeds = {asked.seed for asked in runs}
    assert [confirmation.search.row(asked.number).confirm_of for asked in runs] == [2, 1] * 3
    first = min(seed for seed in seeds if seed is not None)
    assert len(seeds) == 6 and first > 7 + 100_000, (
        "with seed_per_trial, a longer search of the same study comes this far"
    )
