"""What a trial needs of a GPU is looked at before the first one starts, where that decides how many share it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from making import toy_study
from sweepkit.backends import slots
from sweepkit.backends.slots import Machine, Need, Slot
from sweepkit.cli.plan import gpus
from sweepkit.driver import probe
from sweepkit.driver.forecast import Largest
from sweepkit.driver.prepare import Kept, Prepared
from sweepkit.study.errors import StudyFailed
from sweepkit.study.gpus import Gpu

KNOWN = {"0": Gpu(24e3, 2e3), "1": Gpu(24e3, 24e3)}
TWO = Machine(("0", "1"), 8, 64e3, KNOWN)
PREPARED = Prepared(peak_memory_mb=300.0)
SLOW = "train_runtime is a goal, and trials that share a GPU slow each other down"


class Idle:
    """An executor that starts nothing."""

    def __init__(self) -> None:
        self.free: list[Slot] = []


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Return on which GPUs the largest configuration was measured: a stand-in finds 900 MB and a busy quarter of the time."""
    asked: list[tuple[str, ...]] = []

    def measure(bench: Any, known: Any) -> Largest:
        asked.append(bench._executor.free[0].devices)
        return Largest(hyperparameters={}, peak_memory_mb=900.0, busy=0.25)

    monkeypatch.setattr(probe._Bench, "measure_largest", measure)
    return asked


def look(project: Path, monkeypatch: pytest.MonkeyPatch, machine: Machine = TWO, **keys: Any) -> Need:
    study, executor = toy_study(project, **{"training": {"use_cpu": False}, **keys}), Idle()
    study.place.folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(Machine, "here", lambda: machine)
    need = probe.look(study, {}, executor, PREPARED)  # type: ignore[arg-type]  # it stands for an executor
    assert executor.free == []
    return need


def test_the_largest_configuration_is_measured_on_the_gpu_with_most_room(
    project: Path, monkeypatch: pytest.MonkeyPatch, measured: list[tuple[str, ...]]
) -> None:
    assert look(project, monkeypatch) == Need(900.0, 0.25)
    assert measured == [("1",)]


def test_it_is_not_measured_again_until_something_changes(
    project: Path, monkeypatch: pytest.MonkeyPatch, measured: list[tuple[str, ...]]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(project / "cache"))
    code = project / "task.py"
    code.write_text("")
    stamp = [code.stat().st_mtime_ns, code.stat().st_size]
    found = Kept(("a study",), {str(code): stamp}, time.time_ns())
    for kept, times in ((found, 1), (Kept(("a study",)), 1), (Kept(("another",)), 2), (Kept(), 3)):
        monkeypatch.setattr(sys.modules[__name__], "PREPARED", Prepared(peak_memory_mb=300.0, kept=kept))
        assert look(project, monkeypatch) == Need(900.0, 0.25)
        assert len(measured) == times
    code.write_text("x = 1")
    monkeypatch.setattr(sys.modules[__name__], "PREPARED", Prepared(kept=Kept(("a study",))))
    look(project, monkeypatch)
    assert len(measured) == 4
    look(project, monkeypatch, Machine(("0",), 8, 64e3, {"0": Gpu(80e3, 80e3)}))
    assert len(measured) == 5, "another GPU"


@pytest.mark.parametrize(
    ("machine", "keys", "need"),
    [
        (Machine((), 8, 64e3), {}, Need(300.0)),
        (Machine(("MIG-1",), 8, 64e3), {}, Need(300.0)),
        (TWO, {"backend": {"gpus_per_trial": 0.5}}, Need(300.0)),
        (TWO, {"backend": {"gpus_per_trial": 0}}, Need(300.0)),
        (TWO, {"training": {"use_cpu": True}}, Need(300.0)),
        (TWO, {"backend": {"ranks_per_trial": 2}}, Need(300.0)),
        (
            TWO,
            {"objective": {"metrics": [{"metric": "train_runtime"}, {"metric": "eval_loss", "direction": "minimize"}]}},
            Need(300.0, None, SLOW),
        ),
    ],
)
def test_nothing_is_measured_where_it_decides_nothing(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    measured: list[tuple[str, ...]],
    machine: Machine,
    keys: dict[str, Any],
    need: Need,
) -> None:
    assert look(project, monkeypatch, machine, **keys) == need
    assert measured == []


def test_a_configuration_that_cannot_be_measured_lets_each_trial_have_its_gpu(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(bench: Any, known: Any) -> Largest:
        raise StudyFailed("the first steps ended as failed: RuntimeError: no")

    monkeypatch.setattr(probe._Bench, "measure_largest", fail)
    need = look(project, monkeypatch)
    assert need.alone == "what a trial takes is not known: the first steps ended as failed: RuntimeError: no"
    largest = Largest(hyperparameters={}, peak_memory_mb=23e3, out_of_memory="out of memory: CUDA")
    monkeypatch.setattr(probe._Bench, "measure_largest", lambda bench, known: largest)
    assert look(project, monkeypatch) == Need(23e3, None, "the largest configuration runs out of memory")


@pytest.mark.parametrize(
    ("machine", "keys", "text"),
    [
        (Machine((), 8, 64e3), {}, ""),
        (TWO, {}, "2 trials at a time, 1 GPU each; how many fit on a GPU is measured before trial 0"),
        (TWO, {"gpus_per_trial": 0.5}, "4 trials at a time, 2 to a GPU; GPU 0: 2.0 GB of 24.0 GB are free"),
        (TWO, {"use_cpu": True}, "8 trials at a time, 1 thread each"),
        (
            TWO,
            {"use_cpu": True, "gpus_per_trial": 1},
            "2 trials at a time, 1 GPU each; GPU 0: 2.0 GB of 24.0 GB are free",
        ),
        (TWO, {"gpus_per_trial": 3}, "backend.gpus_per_trial: 3 asked for, this machine has 2"),
        (
            Machine(("MIG-1",), 8, 64e3),
            {},
            "1 trial at a time, 1 GPU each; 1 trial on GPU MIG-1: its memory is not known",
        ),
    ],
)
def test_check_says_what_a_trial_gets(
    project: Path, monkeypatch: pytest.MonkeyPatch, machine: Machine, keys: dict[str, Any], text: str
) -> None:
    monkeypatch.setattr(slots.Machine, "here", lambda: machine)
    use_cpu = keys.pop("use_cpu", False)
    assert gpus(toy_study(project, training={"use_cpu": use_cpu}, backend=keys)) == text
