"""Trials that really run out of memory: at a limit of their own, and at one where the kernel kills."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from making import finished, follow, spec, toy_study
from sweepkit.backends.local.executor import Executor
from sweepkit.backends.slots import Slot
from sweepkit.study.linux import OomKills
from sweepkit.trial.events import Finished

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("new_processes")]


GROUPS = Path("/sys/fs/cgroup")
LIMIT_MB = 800
"""More than two trials need together, less than what one of them takes."""


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group with a memory limit (version 2 where it has the controller, else version 1); this process joins."""
    second = (
        "memory" in (GROUPS / "cgroup.controllers").read_text() if (GROUPS / "cgroup.controllers").exists() else False
    )
    folder = (GROUPS if second else GROUPS / "memory") / f"sweepkit-test-{os.getpid()}"
    try:
        folder.mkdir()
        limit = folder / ("memory.max" if second else "memory.limit_in_bytes")
        limit.write_text(str(LIMIT_MB * 2**20))
    except OSError as error:
        pytest.skip(f"no memory control group can be made here ({error}); run the tests as root")
    yield folder
    folder.rmdir()


def ended(executor: Executor, project: Path, options: dict[str, Any]) -> tuple[Finished, Finished]:
    """Run a trial that takes too much memory beside one that does not; return their ends."""
    executor.start(spec(project, 1, options))
    executor.start(spec(project, 2, {"task.step_seconds": 0.05}))
    events = follow(executor)
    return finished(events[1]), finished(events[2])


@pytest.mark.parametrize("codes", [[-9, -9, 0], [0, -9, -9], [-9, 1, -9, -9]])
def test_each_kill_by_the_kernel_explains_one_process_in_whatever_order_they_are_reaped(
    tmp_path: Path, codes: list[int]
) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text("0::/")
    counts = tmp_path / "memory.events"
    counts.write_text("oom 0\noom_kill 3\n")
    kills = OomKills(groups=tmp_path, proc=tmp_path)
    counts.write_text("oom 2\noom_kill 5\n")
    assert [code for code in codes if kills.explains(code)] == [-9, -9]


def test_an_allocation_beyond_a_limit_of_the_process_is_infeasible(project: Path) -> None:
    with Executor(toy_study(project), [Slot(), Slot()]) as executor:
        executor.wait_ready()
        big, other = ended(executor, project, {"task.memory_limit_mb": 200, "task.allocate_mb": 2000})
    assert (big.ending, big.cause) == ("infeasible", "out of memory: MemoryError")
    assert other.ending == "complete"


def test_a_kill_by_the_kernel_for_memory_is_infeasible(project: Path, memory_group: Path) -> None:
    members = memory_group / "cgroup.procs"
    home = memory_group.parent / next(
        line.split(":", 2)[2].lstrip("/")
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if line.split(":")[1] in ("", "memory") and (memory_group.parent.name == "memory") == (":memory:" in line)
    )
    members.write_text(str(os.getpid()))
    try:
        with Executor(toy_study(project), [Slot(), Slot()]) as executor:
            (home / "cgroup.procs").write_text(str(os.getpid()))
            executor.wait_ready()
            big, other = ended(executor, project, {"task.allocate_mb": 4000})
    finally:
        (home / "cgroup.procs").write_text(str(os.getpid()))
    assert (big.ending, big.cause) == ("infeasible", "out of memory: killed by the kernel")
    assert other.ending == "complete"
