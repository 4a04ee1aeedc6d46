"""Sharing out a machine, without having it."""

from __future__ import annotations

from typing import Any

import pytest

from sweepkit.backends.slots import Machine, Slot, gpus_of, plan
from sweepkit.study.errors import InputError
from sweepkit.study.study import BackendSpec

EIGHT = Machine(gpus=tuple("01234567"), cores=64, memory_mb=512_000)
LAPTOP = Machine(gpus=(), cores=4, memory_mb=16_000)


@pytest.mark.parametrize(
    ("machine", "keys", "slots"),
    [
        (LAPTOP, {}, [Slot((), 1)] * 4),
        (LAPTOP, {"parallel": 1}, [Slot((), 4)]),
        (LAPTOP, {"parallel": 2}, [Slot((), 2)] * 2),
        (LAPTOP, {"cpus_per_trial": 2}, [Slot((), 2)] * 2),
        (LAPTOP, {"ranks_per_trial": 2}, [Slot((), 1, 2)] * 2),
        (EIGHT, {}, [Slot((str(i),), 8) for i in range(8)]),
        (EIGHT, {"parallel": 3}, [Slot((str(i),), 21) for i in range(3)]),
        (EIGHT, {"gpus_per_trial": 4}, [Slot(tuple("0123"), 32), Slot(tuple("4567"), 32)]),
        (EIGHT, {"gpus_per_trial": 2, "ranks_per_trial": 2, "parallel": 1}, [Slot(("0", "1"), 32, 2)]),
        (EIGHT, {"ranks_per_trial": 4}, [Slot(tuple("0123"), 8, 4), Slot(tuple("4567"), 8, 4)]),
        (EIGHT, {"gpus_per_trial": 0.5}, [Slot((str(i % 8),), 4) for i in range(16)]),
        (EIGHT, {"gpus_per_trial": 0, "cpus_per_trial": 16}, [Slot((), 16)] * 4),
    ],
)
def test_the_machine_is_shared_out(machine: Machine, keys: dict[str, Any], slots: list[Slot]) -> None:
    assert plan(BackendSpec(**keys), machine) == slots


def test_memory_limits_what_runs_at_once() -> None:
    assert len(plan(BackendSpec(), LAPTOP, trial_memory_mb=5_000)) == 2
    assert len(plan(BackendSpec(), LAPTOP, trial_memory_mb=50_000)) == 1


def test_memory_of_a_gpu_is_not_taken_for_the_machine_s() -> None:
    small = Machine(gpus=tuple("0123"), cores=16, memory_mb=64_000)
    assert len(plan(BackendSpec(), small, trial_memory_mb=40_000)) == 4
    assert len(plan(BackendSpec(gpus_per_trial=0), small, trial_memory_mb=40_000)) == 1


@pytest.mark.parametrize(
    ("machine", "keys", "message"),
    [
        (LAPTOP, {"gpus_per_trial": 1}, "backend.gpus_per_trial: 1 asked for, this machine has 0"),
        (EIGHT, {"gpus_per_trial": 9}, "backend.gpus_per_trial: 9 asked for, this machine has 8"),
        (EIGHT, {"gpus_per_trial": 1.5}, "backend.gpus_per_trial: a fraction below 1 or a whole number, got 1.5"),
        (EIGHT, {"parallel": 9}, "backend.parallel: 9 asked for, 8 GPU(s) hold 8 trials of 1 GPU"),
        (LAPTOP, {"cpus_per_trial": 5}, "backend.cpus_per_trial: 5 × 1 rank(s) asked for, this machine has 4 cores"),
        (LAPTOP, {"cpus_per_trial": 2, "parallel": 3}, "backend.parallel: 3 asked for, 4 cores hold 2 trials"),
    ],
)
def test_what_can_never_fit_is_said(machine: Machine, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        plan(BackendSpec(**keys), machine)
    assert str(error.value) == message


def test_each_rank_sees_its_share_of_the_gpus() -> None:
    slot = Slot(("4", "5"), 8, 2)
    assert slot.environment(1, 29500) == {
        "CUDA_VISIBLE_DEVICES": "5",
        "OMP_NUM_THREADS": "8",
        "RANK": "1",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
    }


@pytest.mark.parametrize(
    ("devices", "gpus"),
    [
        ([("0",), ("0",), ("1",), ("1",)], 0.5),
        ([("0",), ("1",)], 1.0),
        ([("0", "1"), ("2", "3")], 2.0),
        ([(), ()], 0.0),
    ],
)
def test_a_trial_counts_the_gpus_it_holds_and_its_share_of_a_shared_one(
    devices: list[tuple[str, ...]], gpus: float
) -> None:
    assert gpus_of([Slot(devices=each) for each in devices]) == gpus
