"""A study in a real notebook kernel: the stop button, a restart, and going on from the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from making import sweep, wait_until
from sweepkit.trial.events import Evaluated, Event, Started
from sweepkit.trial.log import TrialLog

pytestmark = pytest.mark.real


TESTS = Path(__file__).parents[1]

CELL = """
from sweepkit import Study
from toy_tasks import Quadratic


class Mine(Quadratic):
    pass


study = Study(
    name="toy",
    task=Mine(wait_at_step=8, wait_for="{gate}"),
    training={{"use_cpu": True}},
    objective={{"metric": "eval_score", "direction": "maximize"}},
    space={{"learning_rate": {{"low": 1e-4, "high": 1e-2, "log": True}}}},
    sampler={{"type": "random", "seed": 1}},
    budget={{"trials": 3}},
    backend={{"parallel": 1, "cpus_per_trial": 1}},
    tracking={{"uri": "none"}},
)
study.run()
"""


class Kernel:
    """A kernel and the channel to it."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager, self.client = manager, client

    def reply(self, message: str) -> Mapping[str, Any]:
        """Wait for the end of the cell that was sent as ``message``."""
        while True:
            found = self.client.get_shell_msg(timeout=180)
            if found["parent_header"].get("msg_id") == message:
                content: Mapping[str, Any] = found["content"]
                return content

    def run(self, code: str) -> Mapping[str, Any]:
        """Run a cell to its end."""
        return self.reply(self.client.execute(code))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which the toy tasks can be imported, by a kernel as by what it starts."""
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "IPYTHONDIR": str(tmp_path / "ipython")}


@pytest.fixture
def kernel(project: Path, environment: dict[str, str]) -> Iterator[Kernel]:
    """Yield a kernel whose current folder is the project."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(project), env=environment)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=180)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def events(project: Path, number: int) -> list[Event]:
    return list(TrialLog(project / "runs" / "toy" / "trials" / f"{number:04d}").refresh())


def test_a_study_stopped_in_a_notebook_goes_on_from_the_command_line_after_the_kernels_restart(
    project: Path, kernel: Kernel, environment: dict[str, str]
) -> None:
    gate = project / "gate"

    def waiting() -> int:
        return len(list(project.glob("gate.here-*")))

    cell = kernel.client.execute(CELL.format(gate=gate))
    wait_until(lambda: waiting() == 1, 180, "trial 0 at its gate")
    gate.touch()
    wait_until(lambda: sum(isinstance(event, Evaluated) for event in events(project, 0)) == 2, what="trial 0 behind it")
    gate.unlink()
    wait_until(lambda: waiting() == 2, what="trial 1 at its gate, one evaluation behind it")
    kernel.manager.interrupt_kernel()
    gate.touch()
    assert (reply := kernel.reply(cell))["status"] == "error", reply
    assert reply["ename"] == "KeyboardInterrupt"

    kernel.manager.restart_kernel(now=True)
    process = sweep("run", "toy", cwd=project, env=environment)
    output, _ = process.communicate(timeout=600)
    assert (process.returncode, "3 trials (3 complete)" in output) == (0, True), output

    starts = [[e.resumed for e in events(project, n) if isinstance(e, Started)] for n in range(3)]
    assert starts == [[0], [0, 8], [0]]
    numbers = [[e.number for e in events(project, n) if isinstance(e, Evaluated)] for n in range(3)]
    assert numbers == [[1, 2, 3]] * 3
