"""Sharing out a machine, without having it."""

from __future__ import annotations

from typing import Any

import pytest

from sweepkit.backends.slots import Machine, Need, Slot, describe, explain, gpus_of, plan, roomiest, shares_gpus
from sweepkit.study.errors import InputError
from sweepkit.study.gpus import Gpu
from sweepkit.study.study import BackendSpec

EIGHT = Machine(gpus=tuple("01234567"), cores=64, memory_mb=512_000)
LAPTOP = Machine(gpus=(), cores=4, memory_mb=16_000)


def gpus(*free: float, cores: int = 16, mps: bool = False, exclusive: bool = False) -> Machine:
    """GPUs of 24 GB with so many GB free each; below 0: nothing is known of it."""
    known = {str(i): Gpu(24e3, 1e3 * each, exclusive) for i, each in enumerate(free) if each >= 0}
    return Machine(tuple(str(i) for i in range(len(free))), cores, 64e3, known, mps)


SMALL = Need(3_000, busy=0.3)
MEASURED = (
    "memory for {} (a trial takes up to 3.0 GB, {}.0 GB of 24.0 GB are free), "
    "compute for {} (one kept it busy 30 % of the time{}), cores for {}"
)


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
    assert len(plan(BackendSpec(), LAPTOP, Need(5_000))) == 2
    assert len(plan(BackendSpec(), LAPTOP, Need(50_000))) == 1


def test_memory_of_a_gpu_is_not_taken_for_the_machine_s() -> None:
    small = Machine(gpus=tuple("0123"), cores=16, memory_mb=64_000)
    assert len(plan(BackendSpec(), small, Need(40_000))) == 4
    assert len(plan(BackendSpec(gpus_per_trial=0), small, Need(40_000))) == 1


@pytest.mark.parametrize(
    ("machine", "keys", "message"),
    [
        (LAPTOP, {"gpus_per_trial": 1}, "backend.gpus_per_trial: 1 asked for, this machine has 0"),
        (
            EIGHT,
            {"ranks_per_trial": 9},
            "backend.ranks_per_trial: 9 ranks have a GPU each, and this machine has 8; gpus_per_trial: 0 trains on CPUs",
        ),
        (Machine(("5",), 4, 16e3, wrong="GPU 5 is not there"), {}, "GPU 5 is not there"),
        (EIGHT, {"gpus_per_trial": 9}, "backend.gpus_per_trial: 9 asked for, this machine has 8"),
        (EIGHT, {"gpus_per_trial": 1.5}, "backend.gpus_per_trial: a fraction below 1 or a whole number, got 1.5"),
        (EIGHT, {"parallel": 9, "gpus_per_trial": 1}, "backend.parallel: 9 asked for, 8 GPU(s) hold 8 trials of 1 GPU"),
        (
            EIGHT,
            {"parallel": 9},
            "backend.parallel: 9 asked for, 8 GPU(s) hold 8 trials; 1 trial on each GPU: its memory is not known",
        ),
        (LAPTOP, {"cpus_per_trial": 5}, "backend.cpus_per_trial: 5 × 1 rank(s) asked for, this machine has 4 cores"),
        (LAPTOP, {"cpus_per_trial": 2, "parallel": 3}, "backend.parallel: 3 asked for, 4 cores hold 2 trials"),
        (
            gpus(24, exclusive=True),
            {"gpus_per_trial": 0.5},
            "backend.gpus_per_trial: GPU 0 takes one process at a time (compute mode Exclusive_Process); start the MPS daemon, "
            "or set 1",
        ),
        (
            gpus(1, 0.5),
            {},
            "no GPU has room for a trial: no trial on GPU 0: 1.0 GB of 24.0 GB are free, a trial takes up to 3.0 GB; "
            "no trial on GPU 1: 500 MB of 24.0 GB are free, a trial takes up to 3.0 GB",
        ),
    ],
)
def test_what_can_never_fit_is_said(machine: Machine, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        plan(BackendSpec(**keys), machine, SMALL)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("machine", "need", "counts", "why"),
    [
        (gpus(24), SMALL, [3], f"3 trials on GPU 0: {MEASURED.format(6, 24, 3, '', 16)}"),
        (gpus(24, 24), SMALL, [3, 3], f"3 trials on each GPU: {MEASURED.format(6, 24, 3, '', 8)}"),
        (gpus(24, mps=True), SMALL, [6], f"6 trials on GPU 0: {MEASURED.format(6, 24, 7, ', MPS runs', 16)}"),
        (gpus(24, cores=2), SMALL, [2], f"2 trials on GPU 0: {MEASURED.format(6, 24, 3, '', 2)}"),
        (gpus(10), SMALL, [2], f"2 trials on GPU 0: {MEASURED.format(2, 10, 3, '', 16)}"),
        (gpus(24), Need(3_000, busy=0.0), [6], None),
        (gpus(24), Need(3_000, busy=1.0), [1], None),
        (gpus(24), Need(40_000, busy=0.1), [1], None),
        (
            gpus(24, 1, 8),
            SMALL,
            [3, 0, 2],
            f"3 trials on GPU 0: {MEASURED.format(6, 24, 3, '', 5)}; "
            "no trial on GPU 1: 1.0 GB of 24.0 GB are free, a trial takes up to 3.0 GB; "
            f"2 trials on GPU 2: {MEASURED.format(2, 8, 3, '', 5)}",
        ),
        (
            gpus(24, -1),
            SMALL,
            [3, 1],
            f"3 trials on GPU 0: {MEASURED.format(6, 24, 3, '', 8)}; 1 trial on GPU 1: its memory is not known",
        ),
        (gpus(24), Need(), [1], "1 trial on GPU 0: a trial's memory is not known"),
        (gpus(24), Need(3_000), [1], "1 trial on GPU 0: how much of its time a trial takes is not known"),
        (gpus(24), Need(3_000, 0.3, "so"), [1], "1 trial on GPU 0: so"),
        (
            gpus(24, exclusive=True),
            SMALL,
            [1],
            "1 trial on GPU 0: it takes one process at a time (compute mode Exclusive_Process)",
        ),
        (gpus(24, exclusive=True, mps=True), SMALL, [6], None),
    ],
)
def test_a_gpu_is_shared_by_as_many_as_memory_compute_and_cores_allow(
    machine: Machine, need: Need, counts: list[int], why: str | None
) -> None:
    slots = plan(BackendSpec(), machine, need)
    assert [sum(slot.devices == (gpu,) for slot in slots) for gpu in machine.gpus] == counts
    assert [len(slot.devices) for slot in slots] == [1] * sum(counts)
    assert why is None or explain(BackendSpec(), machine, need) == why


@pytest.mark.parametrize("keys", [{"gpus_per_trial": 1}, {"gpus_per_trial": 0.5}, {"ranks_per_trial": 2}])
def test_what_the_study_says_and_trials_of_several_ranks_are_left_as_they_are(keys: dict[str, Any]) -> None:
    backend = BackendSpec(**keys)
    assert plan(backend, gpus(24, 1), SMALL) == plan(backend, gpus(-1, -1), SMALL)
    assert explain(backend, gpus(24, 24), SMALL) == ""
    assert explain(backend, gpus(24, 1), SMALL) == "GPU 1: 1.0 GB of 24.0 GB are free", "others have the rest"
    assert not shares_gpus(backend, gpus(24, 1)) and shares_gpus(BackendSpec(), gpus(24, 1))


def test_trials_asked_for_are_spread_over_the_gpus_that_have_room() -> None:
    assert [slot.devices[0] for slot in plan(BackendSpec(parallel=4), gpus(24, 8), SMALL)] == ["0", "1", "0", "1"]
    assert len(plan(BackendSpec(parallel=9), gpus(24, 8))) == 9, "how many have room is not known yet"
    with pytest.raises(
        InputError, match=r"parallel: 9 asked for, 2 GPU\(s\) hold 5 trials; 3 trials on GPU 0: memory for 6"
    ):
        plan(BackendSpec(parallel=9), gpus(24, 8), SMALL)


def test_the_trial_that_is_looked_at_gets_the_gpu_with_most_memory_free() -> None:
    machine = gpus(3, -1, 20, 24)
    assert roomiest(plan(BackendSpec(), machine), machine).devices == ("3",)
    assert roomiest(plan(BackendSpec(gpus_per_trial=2), machine), machine).devices == ("2", "3")


@pytest.mark.parametrize(
    ("slots", "text"),
    [
        ([Slot(("0",)), Slot(("1",)), Slot(("0",)), Slot(("1",))], "4 trials at a time, 2 to a GPU"),
        ([Slot(("0",)), Slot(("1",)), Slot(("0",))], "3 trials at a time, up to 2 to a GPU"),
        ([Slot(("0", "1"), 4, 2)], "1 trial at a time, 2 GPUs each for 2 ranks"),
        ([Slot(("0",))], "1 trial at a time, 1 GPU each"),
    ],
)
def test_slots_are_told_in_words(slots: list[Slot], text: str) -> None:
    assert describe(slots) == text


def test_each_rank_sees_its_share_of_the_gpus() -> None:
    slot = Slot(("4", "5"), 8, 2)
    assert slot.environment(1, 29500) == {
        "CUDA_VISIBLE_DEVICES": "5",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
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
