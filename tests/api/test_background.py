"""Runs in the background of a process: waiting, stopping, starting twice; the driver is a fake that waits for the switch."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sweepkit import InputError, Study
from sweepkit.api import background
from sweepkit.check import Checked
from sweepkit.report.watch import Outcome, Switch
from sweepkit.study.locks import StudyLock

SECONDS = 30.0
"""A thread that takes longer hangs."""


class Driver:
    """Stands in for ``run_checked``: runs until the switch was pressed twice, or raises what it was given."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.presses = 0
        self.error: Exception | None = None
        self.started, self._over = threading.Event(), threading.Event()

    def __call__(self, checked: Checked, *, switch: Switch, **options: Any) -> Outcome:
        self.runs.append({"name": checked.study.name, "fresh": options["fresh"]})
        switch.connect(self._press)
        self.started.set()
        if self.error:
            raise self.error
        assert self._over.wait(SECONDS)
        return Outcome("interrupted", [], None, None, "interrupted", 1.0)

    def _press(self) -> None:
        self.presses += 1
        if self.presses == 2:
            self._over.set()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """Put the fake driver in place, and SIGTERM's handler back afterwards."""
    fake, before = Driver(), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(background, "run_checked", fake)
    monkeypatch.setattr(background, "check", lambda study: Checked(study, {}))
    yield fake
    signal.signal(signal.SIGTERM, before)


def study_of(project: Path, **changes: Any) -> Study:
    return Study(
        name="toy",
        task={"path": "task.py:Toy"},
        objective={"metric": "eval_f1", "direction": "maximize"},
        **changes,
    )


def end(stop: Callable[[], None], study: Study) -> Outcome:
    stop()
    stop()
    return study.wait()


def test_a_study_runs_beside_until_it_is_stopped_twice(project: Path, driver: Driver) -> None:
    study = study_of(project)
    study.run_in_background(fresh=True)
    assert driver.started.wait(SECONDS)
    study.stop()
    assert driver.presses == 1
    study.stop()
    assert study.wait().status == "interrupted"
    assert driver.runs == [{"name": "toy", "fresh": True}]


def test_a_study_that_runs_already_is_not_run_twice(project: Path, driver: Driver) -> None:
    study = study_of(project)
    study.run_in_background()
    study.run_in_background()
    end(study.stop, study)
    assert len(driver.runs) == 1


def test_a_changed_study_is_refused_while_the_first_runs(project: Path, driver: Driver) -> None:
    study = study_of(project)
    study.run_in_background()
    with pytest.raises(InputError, match=r"toy is running already, with .*budget.*; stop\(\) it first"):
        study_of(project, budget={"trials": 3}).run_in_background()
    end(study.stop, study)


def test_what_ends_a_run_in_the_background_is_raised_where_one_waits(project: Path, driver: Driver) -> None:
    driver.error = InputError("no disk")
    study = study_of(project)
    study.run_in_background()
    with pytest.raises(InputError, match="no disk"):
        study.wait()


def test_sigterm_stops_the_study_and_not_the_process(project: Path, driver: Driver) -> None:
    study = study_of(project)
    study.run_in_background()
    assert driver.started.wait(SECONDS)
    assert end(lambda: os.kill(os.getpid(), signal.SIGTERM), study).status == "interrupted"


def test_stopping_a_study_of_another_process_names_it(project: Path) -> None:
    study = study_of(project)
    with StudyLock(study.place), pytest.raises(InputError, match=rf"run by process {os.getpid()} on .*sweep stop toy"):
        study.stop()
