"""A trial's log says everything once, whoever was killed while writing it."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import written_trials as trials
from sweepkit.study.errors import StudyFailed
from sweepkit.trial.events import Evaluated, Finished, Logged, Scheduled
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Ending, Reason


def logged(step: int, **metrics: float) -> Logged:
    return Logged(trial=0, at=1.0 + step, step=step, epoch=step / 10, metrics=metrics)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    said = [trials.started(0), *trials.training(0, range(1, 21)), trials.finished(0, Ending.complete, values=(0.5,))]
    with TrialLog(tmp_path) as log:
        assert all(log.append(event) for event in said)
    events, offset = TrialLog(tmp_path).events()
    assert events == said
    assert offset == log.size


def test_a_link_in_the_place_of_a_log_is_refused_and_what_it_leads_to_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "events.jsonl").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(StudyFailed, match=r"events\.jsonl is a link; .*remove the link"):
        TrialLog(tmp_path).append(logged(1, loss=1.0))
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_reading_goes_on_from_an_offset(tmp_path: Path) -> None:
    log = TrialLog(tmp_path)
    log.append(logged(1, loss=1.0))
    _, offset = log.events()
    log.append(logged(2, loss=0.5))
    assert log.events(offset) == ([logged(2, loss=0.5)], log.size)


def test_a_log_of_a_version_without_reasons_is_read(tmp_path: Path) -> None:
    old = '{"kind":"finished","trial":0,"at":1.0,"ending":"failed","cause":"exit code 3","step":4,"seconds":2.0}'
    (tmp_path / "events.jsonl").write_text(old + "\n")
    end = TrialLog(tmp_path).finished
    assert end == Finished(trial=0, at=1.0, ending="failed", cause="exit code 3", step=4, seconds=2.0)
    assert end.reason is None


def test_a_lost_machine_is_no_crash_whatever_the_cause_reads(tmp_path: Path) -> None:
    log = TrialLog(tmp_path)
    for reason, cause in (
        (Reason.lost, "ConnectionError"),
        (Reason.crash, "lost: my keys"),
        (Reason.signal, "signal 9"),
    ):
        log.append(trials.finished(0, Ending.failed, reason=reason, cause=cause))
    assert (log.losses, log.crashes) == (1, 2)
    assert [event.reason for event in TrialLog(tmp_path).refresh() if isinstance(event, Finished)] == [
        Reason.lost,
        Reason.crash,
        Reason.signal,
    ]


def test_an_offset_behind_the_end_belongs_to_an_older_log(tmp_path: Path) -> None:
    log = TrialLog(tmp_path)
    log.append(logged(1, loss=1.0))
    assert log.events(10_000) == ([logged(1, loss=1.0)], log.size)


def test_reading_a_log_that_is_not_there_creates_nothing(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "0000")
    assert log.events() == ([], 0)
    assert (log.started, log.finished, log.evaluations, log.attempts, log.best_checkpoint) == (None, None, [], 0, None)
    assert not (tmp_path / "0000").exists()


def test_waiting_for_others_is_no_time_of_the_trial_and_a_change_is_said_once(tmp_path: Path) -> None:
    log = TrialLog(tmp_path)
    first, again = trials.started(0), replace(trials.started(0), at=trials.started(0).at + 100.0)
    paused = Finished(trial=0, at=first.at + 2.0, ending="stopped", seconds=2.0)
    change = Scheduled(trial=0, at=first.at + 90.0, evaluation=1, step=4, hyperparameters={"learning_rate": 0.1})
    assert [log.append(event) for event in (first, paused, change, change, again)] == [True, True, True, False, True]
    assert log.seconds == 2.0


def test_a_step_said_again_is_left_out(tmp_path: Path) -> None:
    log = TrialLog(tmp_path)
    evaluated = trials.training(0, [10])[1]
    assert isinstance(evaluated, Evaluated)
    assert log.append(logged(10, loss=1.0)) and log.append(evaluated)
    assert not log.append(logged(10, loss=0.9)) and not log.append(evaluated)
    assert log.refresh() == [logged(10, loss=1.0), evaluated]


def test_a_step_may_add_metrics_it_did_not_have(tmp_path: Path) -> None:
    log = TrialLog(tmp_path)
    log.append(logged(10, loss=1.0))
    assert log.append(logged(10, loss=1.0, train_runtime=3.0))
    assert log.refresh() == [logged(10, loss=1.0), logged(10, train_runtime=3.0)]


def test_a_driver_that_goes_on_knows_what_the_one_before_said(tmp_path: Path) -> None:
    with TrialLog(tmp_path) as first:
        first.append(trials.started(0))
        for event in trials.training(0, range(1, 15)):
            first.append(event)
    with TrialLog(tmp_path) as second:
        second.append(trials.started(0, attempt=2))
        for event in trials.training(0, range(11, 31), attempt=2):
            second.append(event)
    steps = [event.step for event in second.refresh() if isinstance(event, Logged)]
    assert steps == list(range(1, 31))
    assert [event.number for event in second.evaluations] == [1, 2, 3]
    assert second.attempts == 2


def test_a_torn_last_line_is_not_read_and_is_cut_when_writing_goes_on(tmp_path: Path) -> None:
    with TrialLog(tmp_path) as log:
        log.append(logged(1, loss=1.0))
    whole = log.size
    with log.path.open("a") as file:
        file.write('{"kind":"logged","trial":0,"at":3.0,"st')
    reader = TrialLog(tmp_path)
    assert reader.events() == ([logged(1, loss=1.0)], whole)
    assert reader.size > whole
    with TrialLog(tmp_path) as writer:
        writer.append(logged(2, loss=0.5))
    assert writer.refresh() == [logged(1, loss=1.0), logged(2, loss=0.5)]


WRITE_FOR_EVER = """
import itertools, pathlib, sys
from sweepkit.trial.events import Logged
from sweepkit.trial.log import TrialLog
log = TrialLog(pathlib.Path(sys.argv[1]))
for step in itertools.count(1):
    metrics = {"loss": 1 / step, "padding": float(step)}
    log.append(Logged(trial=7, at=float(step), step=step, epoch=0.0, metrics=metrics))
"""


@pytest.mark.real
def test_a_writer_killed_at_any_moment_leaves_a_log_that_can_be_gone_on_with(tmp_path: Path) -> None:
    for _ in range(3):
        before = TrialLog(tmp_path).size
        with subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)]) as process:
            while TrialLog(tmp_path).size < before + 10_000:
                assert process.poll() is None
            process.kill()
    with TrialLog(tmp_path) as log:
        log.append(logged(10**9, loss=0.0))
    steps = [event.step for event in log.refresh() if isinstance(event, Logged)]
    assert steps == [*range(1, len(steps)), 10**9]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    import resource

    log = TrialLog(tmp_path)
    log.append(logged(1, loss=1.0))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.size + 20, before[1]))
        with pytest.raises(OSError):
            log.append(logged(2, loss=0.5))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert log.append(logged(2, loss=0.5))
    assert log.refresh() == [logged(1, loss=1.0), logged(2, loss=0.5)]


def test_nan_and_infinity_survive(tmp_path: Path) -> None:
    log = TrialLog(tmp_path)
    log.append(logged(1, loss=math.nan, grad_norm=math.inf))
    (event,) = TrialLog(tmp_path).events()[0]
    assert isinstance(event, Logged)
    assert math.isnan(event.metrics["loss"]) and event.metrics["grad_norm"] == math.inf


def test_the_last_attempt_decides_whether_a_trial_is_finished(tmp_path: Path) -> None:
    log = TrialLog(tmp_path)
    log.append(trials.started(0))
    stop = trials.finished(0, Ending.stopped)
    log.append(stop)
    assert log.finished == stop
    log.append(trials.started(0, attempt=2))
    assert log.finished is None
    crash = trials.finished(0, Ending.failed, attempt=2)
    log.append(crash)
    assert (log.finished, log.crashes, log.out_of_memory, log.seconds) == (crash, 1, 0, 40.0)


def test_an_ended_trial_holds_no_file_open(tmp_path: Path) -> None:
    log = TrialLog(tmp_path)
    log.append(trials.started(0))
    log.append(trials.finished(0, Ending.complete))
    assert str(log.path) not in {file.path for file in psutil.Process().open_files()}
