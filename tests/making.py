"""Makes toy studies and follows their trials; shared by tests that start real processes. Knows no assertion."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from sweepkit.backends.local.executor import Executor
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Event, Finished
from sweepkit.trial.trial import TrialSpec
from toys import TOY_TASKS

SCORE = {"metric": "eval_score", "direction": "maximize"}


def toy_study(project: Path, **keys: Any) -> StudyData:
    """Return a study of toy_tasks.Quadratic: 3 epochs of 4 steps, an evaluation each, nothing tracked."""
    task = {"path": f"{TOY_TASKS}:Quadratic", **keys.pop("task", {})}
    whole = {
        "name": "toy",
        "task": task,
        "training": {"use_cpu": True, **keys.pop("training", {})},
        "objective": SCORE,
        "space": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
        "sampler": {"type": "random", "seed": 1},
        "budget": {"trials": 4},
        "tracking": {"uri": "none"},
        **keys,
    }
    return StudyData.model_validate(whole).at(project)


def follow(executor: Executor, answer: Callable[[Evaluated], str] = lambda event: "continue") -> dict[int, list[Event]]:
    """Answer every evaluation until nothing runs; return each trial's events."""
    events: dict[int, list[Event]] = {}
    deadline = time.monotonic() + 180
    while executor.running:
        assert time.monotonic() < deadline, f"still running after 180 s: {executor.running}"
        for event in executor.poll(0.5):
            events.setdefault(event.trial, []).append(event)
            if isinstance(event, Evaluated):
                executor.answer(event.trial, answer(event))
    return events


def spec(project: Path, number: int, hyperparameters: Mapping[str, Any] | None = None, **keys: Any) -> TrialSpec:
    """Return a spec whose folder lies where the study has it."""
    return TrialSpec(
        number=number,
        hyperparameters={"learning_rate": 1e-3, **(hyperparameters or {})},
        directory=str(project / "runs" / "toy" / "trials" / f"{number:04d}"),
        **keys,
    )


class Kept:
    """A trial's line that keeps the events and gives one answer to every evaluation."""

    def __init__(self, answer: str = "continue") -> None:
        self.events: list[Event] = []
        self._answer = answer

    def send(self, event: Event) -> None:
        self.events.append(event)

    def ask(self, event: Evaluated) -> str:
        self.send(event)
        return self._answer

    def poll(self) -> str | None:
        return None

    def of(self, kind: type[Event]) -> list[Any]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


def finished(events: list[Event]) -> Finished:
    """Return the last event, which must be the only Finished."""
    assert [isinstance(event, Finished) for event in events] == [False] * (len(events) - 1) + [True]
    last = events[-1]
    assert isinstance(last, Finished)
    return last


def wait_until(condition: Callable[[], Any], seconds: float = 30.0, what: str = "") -> Any:
    """Return the condition's first true value; fail after so many seconds. Polls, as there is nothing to wait on.

    A pause between two looks leaves the processor to what is waited for.
    """
    pause = threading.Event()
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        pause.wait(0.01)


def sweep(*arguments: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    """Start the command line in a process of its own, its output piped."""
    return subprocess.Popen(
        [sys.executable, "-m", "sweepkit", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def processes_below(marker: str) -> list[psutil.Process]:
    """Return living processes that have ``marker`` in their environment, the caller left out."""
    found = []
    for process in psutil.process_iter():
        try:
            alive = process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
            if alive and marker in process.environ().get("SWEEPKIT_TEST_MARK", ""):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
