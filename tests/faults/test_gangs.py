"""Trials of two ranks (gloo) that end in every way: all ranks end together, soon, and with the cause where it began."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from making import finished, follow, spec, toy_study, wait_until
from sweepkit.backends.local.executor import Executor
from sweepkit.backends.slots import Slot
from sweepkit.trial.events import Evaluated, Event, Finished
from sweepkit.trial.trial import Reason, TrialSpec
from sweepkit.trial.worker import SPARE

pytestmark = pytest.mark.real


SECONDS = 15.0
"""So soon after its cause a gang is gone."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "pyproject.toml").touch()
    return folder


@pytest.fixture(scope="module")
def executor(project: Path) -> Iterator[Executor]:
    study = toy_study(project)
    del study.training["use_cpu"]  # ranks on a machine without GPUs say so themselves
    with Executor(study, [Slot(ranks=2)]) as executor:
        executor.wait_ready()
        yield executor


def ended(executor: Executor, trial: TrialSpec, word: str = "continue") -> tuple[Finished, list[Event]]:
    """Run a gang to its end, answering with a word; nothing of it may be left."""
    began = time.monotonic()
    executor.start(trial)
    events = follow(executor, lambda event: word)[trial.number]
    assert time.monotonic() - began < SECONDS
    assert {child.name() for child in psutil.Process(executor.warm_pid).children(recursive=True)} <= {SPARE}
    return finished(events), events


def test_every_rank_trains_the_same_parameters(executor: Executor, project: Path) -> None:
    note = project / "note"
    end, events = ended(executor, spec(project, 1, {"learning_rate": 3e-3, "task.x": 0.25, "task.note": str(note)}))
    assert (end.ending, end.step) == ("complete", 6), "two ranks share the rows: half as many steps"
    said = [json.loads(Path(f"{note}-{rank}").read_text()) for rank in (0, 1)]
    assert said[0] == said[1]
    assert (said[0]["learning_rate"], said[0]["x"]) == (3e-3, 0.25)
    assert [event.number for event in events if isinstance(event, Evaluated)] == [1, 2, 3]


def test_ranks_listen_on_the_loopback_interface_alone(executor: Executor, project: Path) -> None:
    gate = project / "gate"
    executor.start(spec(project, 9, {"task.wait_at_step": 2, "task.wait_for": str(gate)}))
    wait_until(
        lambda: executor.poll(0.1) is not None and len(list(project.glob("gate.here-*"))) == 2, 180, "both train"
    )
    pids = [int(path.name.rpartition("-")[2]) for path in project.glob("gate.here-*")]
    listening = {
        connection.laddr.ip
        for pid in pids
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    gate.touch()
    events = follow(executor, lambda event: "continue")[9]
    assert finished(events).ending == "complete"
    assert listening == {"127.0.0.1"}


def test_every_rank_is_pruned(executor: Executor, project: Path) -> None:
    end, events = ended(executor, spec(project, 2), "prune")
    assert end.ending == "pruned"
    assert [event.number for event in events if isinstance(event, Evaluated)] == [1]


def test_every_rank_stops_and_goes_on_from_one_checkpoint(executor: Executor, project: Path) -> None:
    first, events = ended(executor, spec(project, 3), "stop")
    last = project / "runs/toy/trials/0003/last/checkpoint-2"
    assert (first.ending, last.is_dir()) == ("stopped", True)
    said = tuple({"number": e.number, "step": e.step, "values": e.values} for e in events if isinstance(e, Evaluated))
    second, _ = ended(executor, spec(project, 3, resume_from=str(last), evaluations=said))
    assert (second.ending, second.step) == ("complete", 6)


@pytest.mark.parametrize(
    ("fault", "ending", "cause"),
    [
        ({}, "failed", "RuntimeError: toy failure at step 2"),
        ({"task.kill": True}, "failed", "signal 9 (SIGKILL)"),
        ({"task.segfault": True}, "failed", "signal 11 (SIGSEGV)"),
        ({"task.exit_code": 3}, "failed", "exit code 3"),
    ],
)
def test_one_ranks_fault_ends_all_with_its_cause(
    executor: Executor, project: Path, tmp_path: Path, fault: dict[str, Any], ending: str, cause: str
) -> None:
    options = {"task.fail_at_step": 2, "task.once": str(tmp_path / "one-rank-only"), **fault}
    end, _ = ended(executor, spec(project, 4, options))
    assert (end.ending, end.cause.removeprefix("rank 1: ")) == (ending, cause)


def test_a_gang_past_its_deadline_is_ended(project: Path, tmp_path: Path) -> None:
    hang = {"task.hang": True, "task.fail_at_step": 2, "task.once": str(tmp_path / "one-rank-only")}
    slots = [Slot(ranks=2)]
    with Executor(toy_study(project, budget={"trial_hours": 2 / 3600}), slots) as executor:
        executor.wait_ready()
        end, _ = ended(executor, spec(project, 5, hang))
    assert (end.ending, end.reason, end.cause) == ("failed", Reason.deadline, "deadline: ran longer than 2 s")
