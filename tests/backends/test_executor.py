"""The executor with real processes: one warm process, trials that do everything wrong, and what is left of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from making import finished, follow, spec, toy_study, wait_until
from sweepkit.backends.local.executor import Executor
from sweepkit.backends.slots import Slot
from sweepkit.study.errors import StudyFailed
from sweepkit.trial.events import Checkpointed, Evaluated, Logged, Started
from sweepkit.trial.trial import Reason, read_spec
from sweepkit.trial.worker import SPARE

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("new_processes")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "pyproject.toml").touch()
    return folder


WATCHES_CUDA = """
import os, torch

def noting(name, does, starts):
    def noted(*args, **kwargs):
        with open({file!r}, "a") as file:
            file.write(f"{{os.getpid()}} {{name}} {{starts()}}\\n")
        return does(*args, **kwargs)
    setattr(torch.cuda, name, noted)

noting("_lazy_init", torch.cuda._lazy_init, lambda: True)
noting("is_available", torch.cuda.is_available, lambda: not torch.cuda._nvml_based_avail())
torch.cuda.is_available()
"""
"""``sitecustomize`` of all processes: asks for a GPU, as the files of many tasks do, and notes what starts CUDA."""


@pytest.fixture(scope="module")
def executor(project: Path) -> Iterator[Executor]:
    (project / "sitecustomize.py").write_text(WATCHES_CUDA.format(file=str(project / "cuda")))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(project))
        executor = Executor(toy_study(project), [Slot(), Slot()])
        with executor:
            executor.wait_ready()
            yield executor


def test_the_warm_process_has_one_thread_and_does_not_start_cuda(executor: Executor, project: Path) -> None:
    warm = psutil.Process(executor.warm_pid)
    assert warm.num_threads() == 1
    noted = [line.split() for line in (project / "cuda").read_text().splitlines()]
    before_and_after_its_fork = (warm.ppid(), warm.pid)
    of_warm = {(name, starts) for pid, name, starts in noted if int(pid) in before_and_after_its_fork}
    assert of_warm == {("is_available", "False")}


def test_a_trial_tells_its_story_in_order(executor: Executor, project: Path) -> None:
    executor.start(spec(project, 1))
    events = follow(executor)[1]
    end = finished(events)
    assert (end.ending, end.cause, end.step) == ("complete", "", 12)
    assert isinstance(events[0], Started) and events[0].proved == ("learning_rate", "use_cpu")
    assert [event.number for event in events if isinstance(event, Evaluated)] == [1, 2, 3]
    assert [event.step for event in events if isinstance(event, Evaluated)] == [4, 8, 12]
    assert [e.step for e in events if isinstance(e, Checkpointed) and e.role == "last"] == [4, 8]
    assert any(isinstance(event, Logged) and "loss" in event.metrics for event in events)
    assert end.values == (max(e.values[0] for e in events if isinstance(e, Evaluated)),)
    assert (project / "runs/toy/trials/0001/best/config.json").is_file()


@pytest.mark.parametrize(
    ("options", "ending", "reason", "cause"),
    [
        ({"task.fail_at_step": 2}, "failed", Reason.crash, "RuntimeError: toy failure at step 2"),
        ({"task.exit_code": 3}, "failed", Reason.exit, "exit code 3"),
        ({"task.exit_code": 0}, "failed", Reason.exit, "exit code 0"),
        ({"task.segfault": True}, "failed", Reason.signal, "signal 11 (SIGSEGV)"),
        ({"task.kill": True}, "failed", Reason.signal, "signal 9 (SIGKILL)"),
        ({"task.nan_at_step": 3}, "diverged", Reason.not_finite, "training loss is not finite at step 3"),
        (
            {"task.out_of_memory_above": 4},
            "infeasible",
            Reason.out_of_memory,
            "out of memory: toy out of memory with a micro-batch of 8",
        ),
        ({"task.hostile": "exit"}, "failed", Reason.crash, "SystemExit: 4"),
        ({"task.hostile": "odd"}, "failed", Reason.crash, "Odd: Odd, whose message cannot be shown"),
        ({"task.hostile": "nameless"}, "failed", Reason.crash, "Lines"),
        ({"task.hostile": "cycle"}, "failed", Reason.crash, "RuntimeError: its own cause"),
        ({"task.hostile": "closed"}, "failed", Reason.crash, "RuntimeError: nothing to print to"),
        ({"task.hostile": "huge"}, "failed", Reason.crash, f"RuntimeError: {'x' * 486}"),
        ({"task.broken": "data"}, "failed", Reason.crash, "Quadratic.data() raised RuntimeError: toy data is broken"),
        ({"task.broken": "model"}, "failed", Reason.crash, "RuntimeError: toy model is broken"),
        ({"task.curve": [float("nan")]}, "diverged", Reason.not_finite, "eval_score is not finite at step 4"),
    ],
)
def test_what_goes_wrong_is_the_trials_end_with_its_cause(
    executor: Executor, project: Path, options: dict[str, object], ending: str, reason: Reason, cause: str
) -> None:
    executor.start(spec(project, 2, options))
    executor.start(spec(project, 3))
    events = follow(executor)
    end = finished(events[2])
    assert (end.ending, end.reason, end.cause) == (ending, reason, cause)
    assert finished(events[3]).ending == "complete"


def test_where_memory_runs_out_beside_other_trials_one_fewer_runs_on_that_gpu(
    executor: Executor, project: Path
) -> None:
    before, large = list(executor.free), {"task.out_of_memory_above": 4}
    executor.free[:] = [Slot(("5",)), Slot(("7",)), Slot(("7",))]
    for number, options in ((20, {}), (21, large), (22, large)):
        executor.start(spec(project, number, options))
    ends = {number: finished(events) for number, events in follow(executor).items()}
    assert {n: (end.ending, end.neighbours) for n, end in ends.items()} == {
        20: ("complete", 0),
        21: ("infeasible", 1),
        22: ("infeasible", 1),
    }
    assert sorted(slot.devices for slot in executor.free) == [("5",), ("7",)]
    executor.free.sort(key=lambda slot: slot.devices, reverse=True)
    executor.start(spec(project, 23, large))
    (end,) = (finished(events) for events in follow(executor).values())
    assert (end.ending, end.neighbours, len(executor.free)) == ("infeasible", 0, 2)
    executor.free[:] = before


def test_where_a_trial_took_more_than_planned_one_fewer_runs_on_that_gpu(executor: Executor, project: Path) -> None:
    before = list(executor.free)
    executor.free[:], executor.room = [Slot(("5",)), Slot(("7",)), Slot(("7",))], {"5": 1.0, "7": 1.0}
    for number in (24, 25):
        executor.start(spec(project, number))
    assert all(finished(events).ending == "complete" for events in follow(executor).values())
    assert sorted(slot.devices for slot in executor.free) == [("5",), ("7",)], "the one on its own stays"
    shares = [read_spec(project / f"runs/toy/trials/{number:04d}") for number in (24, 25)]
    assert [spec.gpus for spec in shares if spec] == [1.0, 0.5]
    executor.free[:], executor.room = before, {}


def test_a_pruned_trial_says_nothing_more(executor: Executor, project: Path) -> None:
    executor.start(spec(project, 4))
    events = follow(executor, lambda event: "prune" if event.number == 2 else "continue")[4]
    assert finished(events).ending == "pruned"
    assert isinstance(events[-2], Evaluated) and events[-2].number == 2


def test_a_stopped_trial_goes_on_from_its_checkpoint_as_if_nothing_had_been(executor: Executor, project: Path) -> None:
    executor.start(spec(project, 5))
    straight = follow(executor)[5]
    executor.start(spec(project, 6))
    first = follow(executor, lambda event: "stop" if event.number == 2 else "continue")[6]
    assert finished(first).ending == "stopped"
    last = [e for e in first if isinstance(e, Checkpointed) and e.role == "last"][-1]
    said = tuple({"number": e.number, "step": e.step, "values": e.values} for e in first if isinstance(e, Evaluated))
    executor.start(spec(project, 6, resume_from=last.path, evaluations=said, attempt=2))
    second = follow(executor)[6]
    assert isinstance(second[0], Started) and (second[0].resumed, second[0].attempt) == (8, 2)
    assert finished(second).values == finished(straight).values
    third_straight, third = ([e for e in events if isinstance(e, Evaluated)][-1] for events in (straight, second))
    assert third.metrics["eval_loss"] == third_straight.metrics["eval_loss"]


def test_a_task_that_cannot_be_imported_is_said_at_once(project: Path) -> None:
    (project / "broken_task.py").write_text("print('x' * 20_000_000)\nimport does_not_exist\n")
    study = toy_study(project).model_copy(
        update={"task": toy_study(project).task.model_copy(update={"path": "broken_task.py:X"})}
    )
    warm = Executor(study.at(project), [Slot()])
    with warm as executor, pytest.raises(StudyFailed, match="does_not_exist"):
        executor.wait_ready()
    assert (project / "runs/toy/warm.log").stat().st_size < 10e6


def test_the_next_trials_process_is_forked_ahead_and_anew_after_a_late_import(
    executor: Executor, project: Path
) -> None:
    def spares() -> list[int]:
        return [child.pid for child in psutil.Process(executor.warm_pid).children() if child.name() == SPARE]

    executor.start(spec(project, 30))
    follow(executor)
    (ahead,) = wait_until(spares)
    executor.start(spec(project, 31))
    (started, *_) = follow(executor)[31]
    assert isinstance(started, Started) and started.pid == ahead
    (stale,) = wait_until(spares)
    executor.preload(["sklearn.metrics"])
    executor.start(spec(project, 32))
    events = follow(executor)[32]
    assert isinstance(events[0], Started) and events[0].pid != stale
    assert finished(events).ending == "complete"


def test_a_dead_warm_process_takes_its_trials_with_it(executor: Executor, project: Path) -> None:
    """The last of this module: the executor's warm process is dead afterwards."""
    executor.start(spec(project, 33, {"task.hang": True}))
    warm = psutil.Process(executor.warm_pid)
    wait_until(lambda: len(warm.children()) == 2, what="the trial is forked, and the next one's process")
    children = warm.children()
    os.kill(warm.pid, signal.SIGKILL)
    with pytest.raises(StudyFailed, match="the warm process ended with status -9"):
        follow(executor)
    wait_until(lambda: not any(child.is_running() for child in children), 5, "both are gone")
