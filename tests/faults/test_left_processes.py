"""What a trial starts ends with it: in sessions of its own, daemons, workers; and a trial's end is that of its process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from making import finished, follow, spec, sweep, toy_study, wait_until
from sweepkit.backends.local.executor import Executor
from sweepkit.backends.slots import Slot
from sweepkit.study.errors import StudyFailed
from sweepkit.trial.events import Evaluated, Event, Started

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("new_processes")]

SECONDS = 1.5
"""So soon after a trial's end its slot is free."""
DEADLINE = 6.0


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "pyproject.toml").touch()
    return folder


@pytest.fixture(scope="module")
def executor(project: Path) -> Iterator[Executor]:
    with Executor(toy_study(project, budget={"trials": 1, "trial_hours": DEADLINE / 3600}), [Slot()]) as executor:
        executor.wait_ready()
        yield executor


def left(note: Path) -> list[psutil.Process]:
    """Return the processes that a trial left and that still run."""
    found = []
    for pid in map(int, note.read_text().split()):
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def sockets(processes: list[psutil.Process]) -> list[str]:
    """Return the open sockets of processes."""
    files = [str(file.readlink()) for process in processes for file in Path(f"/proc/{process.pid}/fd").iterdir()]
    return [file for file in files if file.startswith("socket:")]


@pytest.mark.parametrize("way", ["complete", "pruned", "stopped", "deadline", "signal"])
def test_a_slot_is_free_when_its_trials_process_has_ended_and_nothing_of_it_remains(
    executor: Executor, project: Path, way: str
) -> None:
    note = project / f"left-{way}"
    hangs = way in ("deadline", "signal")
    executor.start(spec(project, len(way), {"task.leaves": str(note), **({"task.hang": True} if hangs else {})}))
    heard: list[Event] = []
    if way == "signal":
        wait_until(lambda: (heard.extend(executor.poll(0.05)), note.exists() and len(left(note)) == 4)[1])
        assert sockets(left(note)) == [], "what a trial starts does not inherit its socket"
        [started] = [event for event in heard if isinstance(event, Started)]
        psutil.Process(started.pid).kill()
    answers = {"pruned": "prune", "stopped": "stop"}
    asked = [time.monotonic()]

    def answer(event: Evaluated) -> str:
        asked.append(time.monotonic())
        return answers.get(way, "continue")

    began = time.monotonic()
    end = finished([*heard, *follow(executor, answer)[len(way)]])
    assert time.monotonic() - asked[-1] < (DEADLINE if way == "deadline" else 0) + SECONDS
    assert len(executor.free) == 1 and time.monotonic() - began < DEADLINE + SECONDS
    causes = {"deadline": f"deadline: ran longer than {DEADLINE:g} s", "signal": "signal 9 (SIGKILL)"}
    assert (end.cause, str(end.ending)) == (causes.get(way, ""), "failed" if hangs else way)
    wait_until(lambda: not left(note), 1, "what the trial left is gone")


@pytest.mark.parametrize("prints", ["line", "endless"])
def test_of_what_a_trial_prints_without_end_the_beginning_and_the_end_are_kept(
    executor: Executor, project: Path, prints: str
) -> None:
    number = 20 + len(prints)
    log = project / f"runs/toy/trials/{number:04d}/console.log"
    executor.start(spec(project, number, {"task.prints": prints}))
    largest = 0
    while executor.running:
        for event in executor.poll(0.05):
            if isinstance(event, Evaluated):
                executor.answer(number, "continue")
        largest = max(largest, log.stat().st_size if log.exists() else 0)
    text = log.read_text()
    assert largest < 10e6
    assert text.startswith("the beginning\n") and " bytes of output left out here]" in text
    assert ("the end\n" in text) == (prints == "line")


DRIVER = """
import os, sys, time
from pathlib import Path
from making import spec, toy_study
from sweepkit.backends.local.executor import Executor
from sweepkit.backends.slots import Slot

project, note = map(Path, sys.argv[1:])
with Executor(toy_study(project), [Slot()]) as executor:
    executor.start(spec(project, 30, {"task.leaves": str(note), "task.hang": True}))
    while not note.exists() or note.read_text().count("\\n") < 4:
        executor.poll(0.05)
    if os.fork() == 0:  # a child with everything the driver has open, as other libraries make them
        time.sleep(5)
        os._exit(0)
    print(executor.warm_pid, flush=True)
    while True:
        executor.poll(0.05)
"""


def driver(project: Path, note: Path) -> tuple[psutil.Process, psutil.Process]:
    """Start a driver whose trial leaves processes and hangs; return it and its warm process."""
    command = [sys.executable, "-c", DRIVER, str(project), str(note)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*sys.path[:1], str(Path(__file__).parents[1]), *sys.path]),
    }
    process = psutil.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    with process.stdout as said:
        return process, psutil.Process(int(said.readline()))


@pytest.mark.parametrize("killed", ["driver", "driver and warm process"])
def test_nothing_of_a_trial_outlives_the_driver(project: Path, tmp_path: Path, killed: str) -> None:
    driving, warm = driver(project, tmp_path / "left")
    if killed != "driver":
        warm.suspend()
        warm.kill()
    driving.kill()
    driving.wait()
    wait_until(lambda: not left(tmp_path / "left") and not warm.is_running(), 5, "everything is gone")


def test_what_is_left_where_every_process_of_a_driver_was_killed_is_ended_by_the_next_one(
    project: Path, tmp_path: Path
) -> None:
    """Only what the trial started with an empty environment cannot be told from other people's processes."""
    driving, warm = driver(project, tmp_path / "all")
    keeper = warm.parent()
    for process in (driving, warm, keeper):
        process.suspend()
    for process in (driving, warm, keeper):
        process.kill()
    driving.wait()
    wait_until(lambda: not warm.is_running())
    assert len(left(tmp_path / "all")) >= 3
    with Executor(toy_study(project), [Slot()]) as executor:
        [bare] = left(tmp_path / "all")
        bare.kill()
        note = tmp_path / "warm"
        executor.start(spec(project, 31, {"task.leaves": str(note), "task.hang": True}))
        executor.wait_ready()
        wait_until(lambda: (executor.poll(0.05), note.exists() and len(left(note)) == 4)[1])
        psutil.Process(executor.warm_pid).kill()
        with pytest.raises(StudyFailed, match="the warm process ended with status -9"):
            follow(executor)
        assert left(note) == []


def test_a_check_that_is_killed_takes_the_process_that_imports_the_task_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    (tmp_path / "task.py").write_text(
        "import os, threading\nfrom pathlib import Path\n"
        f"Path({str(note)!r}).write_text(str(os.getpid()))\nthreading.Event().wait(600)\n"
    )
    (tmp_path / "study.yaml").write_text(
        "name: hangs\ntask: {path: task.py:Mine}\nobjective: {metric: eval_loss, direction: minimize}\n"
        "space: {learning_rate: {low: 1e-5, high: 1e-3, log: true}}\nbudget: {trials: 2}\n"
    )
    checking = sweep("check", "study.yaml", cwd=tmp_path)
    wait_until(lambda: note.exists() and note.read_text(), 60, "the task is imported")
    importing = psutil.Process(int(note.read_text()))
    assert importing.pid != checking.pid
    checking.kill()
    checking.communicate()
    psutil.wait_procs([importing], timeout=5)
    assert not importing.is_running()
