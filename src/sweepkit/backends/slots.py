"""Shares out this machine among trials: which GPUs and how many threads each of them gets. Touches no CUDA."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sweepkit.study import words
from sweepkit.study.errors import InputError
from sweepkit.study.gpus import Gpu, gpu_order, gpus_here, look, mps_runs, wrong_gpus
from sweepkit.study.study import BackendSpec

FILLED = 0.9
"""Part of a GPU's free memory that trials are planned into; the rest is for what the allocator cannot use."""
CONTEXT_MB = 600.0
"""Taken for what CUDA and its libraries hold for each process; a trial's peak is what torch allocates beside it."""
OVERLAP = 2.0
"""How many times the trials that fill a GPU's time are taken to fill it under MPS, where their kernels run side by side."""


@dataclass(frozen=True)
class Slot:
    """A place where one trial runs."""

    devices: tuple[str, ...] = ()
    """GPU ids, as CUDA_VISIBLE_DEVICES takes them; empty: no GPU."""
    threads: int = 1
    """Threads each process of the trial computes with."""
    ranks: int = 1
    """Processes of the trial."""

    def environment(self, rank: int, port: int) -> dict[str, str]:
        """Return what a trial's process of this rank finds in its environment."""
        devices = self.devices
        if self.ranks > 1 and len(devices) >= self.ranks:
            share = len(devices) // self.ranks
            devices = devices[rank * share : (rank + 1) * share]
        result = {"CUDA_VISIBLE_DEVICES": ",".join(devices), "OMP_NUM_THREADS": str(self.threads), **gpu_order()}
        if self.ranks > 1:
            result |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(0 if len(devices) < len(self.devices) else rank % (len(devices) or self.ranks)),
                "WORLD_SIZE": str(self.ranks),
                "LOCAL_WORLD_SIZE": str(self.ranks),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "TORCHELASTIC_USE_AGENT_STORE": "True",  # rank 0 hosts the store as torchrun would, see trial.worker
                "GLOO_SOCKET_IFNAME": "lo",
                "NCCL_SOCKET_IFNAME": "lo",
            }
        return result


@dataclass(frozen=True)
class Need:
    """What one trial was seen to take."""

    memory_mb: float = 0.0
    """Peak, of its GPU if it has one, else of the machine; 0 when unknown."""
    busy: float | None = None
    """Part of the time in which it kept its GPU busy; None when unknown."""
    alone: str = ""
    """Why it has its GPU for itself, whatever it takes; else empty."""


@dataclass(frozen=True)
class Machine:
    """What there is to share out."""

    gpus: tuple[str, ...]
    cores: int
    memory_mb: float
    known: Mapping[str, Gpu] = field(default_factory=dict)
    """GPU → what is known of it; those of which nothing is known are left out."""
    mps: bool = False
    """Whether NVIDIA's MPS daemon runs."""
    wrong: str = ""
    """What is wrong with the GPUs' ids; else empty."""

    @classmethod
    def here(cls) -> Machine:
        """Return this machine's GPUs, usable cores and available memory, within its control group's limits."""
        if not (gpus := gpus_here()):
            return cls((), _cores(), _memory_mb())
        return cls(gpus, _cores(), _memory_mb(), look(gpus), mps_runs(), wrong_gpus())


def _cores() -> int:
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return cores


def _memory_mb() -> float:
    import psutil

    available = float(psutil.virtual_memory().available)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        if limit != "max":
            available = min(available, float(int(limit) - used))
    except (OSError, ValueError):
        pass
    return available / 1e6


def plan(backend: BackendSpec, machine: Machine, need: Need | None = None) -> list[Slot]:
    """Return the slots that trials run on, at least one; ``need``: None where no trial was looked at yet.

    Raises InputError for what can never fit.
    """
    _refuse(backend, machine)
    ranks, shares = backend.ranks_per_trial, _shares(backend, machine, need or Need())
    gpus = backend.gpus(found=bool(machine.gpus))
    groups = _device_groups(machine.gpus, gpus, {gpu: count for gpu, (count, _) in shares.items()})
    if gpus and not groups:
        raise InputError(f"no GPU has room for a trial: {explain(backend, machine, need or Need())}")
    most = len(groups) or max(1, machine.cores // (ranks * _cpus(backend)))
    count = _count(backend, machine, need, most)
    threads = max(1, machine.cores // (count * ranks)) if backend.cpus_per_trial == "auto" else backend.cpus_per_trial
    return [Slot(groups[i % most] if groups else (), threads, ranks) for i in range(count)]


def _count(backend: BackendSpec, machine: Machine, need: Need | None, most: int) -> int:
    """Return how many trials run at a time, of the most that GPUs, or else cores, hold. Raises InputError for more."""
    gpus, shares = backend.gpus(found=bool(machine.gpus)), _shares(backend, machine, need or Need())
    if backend.parallel == "auto":
        memory = need.memory_mb if need and not gpus else 0.0
        return max(1, min(most, int(0.8 * machine.memory_mb / memory))) if memory else most
    if backend.parallel <= most or (shares and need is None):
        return backend.parallel
    if gpus:
        each = f"; {explain(backend, machine, need or Need())}" if shares else f" of {gpus:g} GPU"
        there = f"{len(machine.gpus)} GPU(s) hold {most} trials{each}"
        raise InputError(f"backend.parallel: {backend.parallel} asked for, {there}")
    if backend.cpus_per_trial != "auto":
        raise InputError(f"backend.parallel: {backend.parallel} asked for, {machine.cores} cores hold {most} trials")
    return backend.parallel


def shares_gpus(backend: BackendSpec, machine: Machine) -> bool:
    """Whether what a trial takes decides how many share a GPU."""
    return bool(_shares(backend, machine, Need()) and machine.known)


def _refuse(backend: BackendSpec, machine: Machine) -> None:
    """Refuse what this machine does not have, whatever a trial takes, and to share a GPU that lets one process in."""
    gpus, ranks, cpus = backend.gpus(found=bool(machine.gpus)), backend.ranks_per_trial, _cpus(backend)
    if gpus and machine.wrong:
        raise InputError(machine.wrong)
    if gpus > len(machine.gpus) and backend.gpus_per_trial == "auto":
        there = (
            f"{ranks} ranks have a GPU each, and this machine has {len(machine.gpus)}; gpus_per_trial: 0 trains on CPUs"
        )
        raise InputError(f"backend.ranks_per_trial: {there}")
    if gpus > len(machine.gpus):
        raise InputError(f"backend.gpus_per_trial: {gpus:g} asked for, this machine has {len(machine.gpus)}")
    if gpus > 1 and gpus != int(gpus):
        raise InputError(f"backend.gpus_per_trial: a fraction below 1 or a whole number, got {gpus:g}")
    if backend.cpus_per_trial != "auto" and cpus * ranks > machine.cores:
        asked = f"{cpus} × {ranks} rank(s)"
        raise InputError(f"backend.cpus_per_trial: {asked} asked for, this machine has {machine.cores} cores")
    exclusive = [gpu for gpu in machine.gpus if (known := machine.known.get(gpu)) and known.exclusive]
    if exclusive and not machine.mps and 0 < gpus < 1:
        where = f"GPU {exclusive[0]} takes one process at a time (compute mode Exclusive_Process)"
        raise InputError(f"backend.gpus_per_trial: {where}; start the MPS daemon, or set 1")


def _cpus(backend: BackendSpec) -> int:
    """Return the threads that a process of a trial gets at least."""
    return 1 if backend.cpus_per_trial == "auto" else backend.cpus_per_trial


def _device_groups(gpus: tuple[str, ...], per_trial: float, counts: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Split GPUs into groups of ``per_trial``; below 1, each GPU appears as often as the fraction fits, in turns.

    ``counts`` says for each GPU how often it appears, where that was worked out.
    """
    if per_trial == 0:
        return []
    if per_trial < 1 or counts:
        counts = counts or dict.fromkeys(gpus, math.floor(1 / per_trial + 1e-9))
        return [(gpu,) for turn in range(max(counts.values())) for gpu in gpus if turn < counts[gpu]]
    size = int(per_trial)
    return [gpus[i : i + size] for i in range(0, len(gpus) - size + 1, size)]


def _shares(backend: BackendSpec, machine: Machine, need: Need) -> dict[str, tuple[int, str]]:
    """Return GPU → how many trials share it and why, where the study leaves that open; else nothing.

    Trials of several ranks do not share: NCCL's operations of two trials may wait for each other.
    """
    if backend.gpus_per_trial != "auto" or backend.ranks_per_trial > 1:
        return {}
    cores = max(1, machine.cores // (max(1, len(machine.gpus)) * _cpus(backend)))
    return {gpu: _share(machine.known.get(gpu), need, cores, mps=machine.mps) for gpu in machine.gpus}


def fit(free_mb: float, trial_mb: float) -> int:
    """Return how many trials of this peak fit into a GPU's free memory."""
    return int(FILLED * free_mb / (trial_mb + CONTEXT_MB))


def _share(gpu: Gpu | None, need: Need, cores: int, *, mps: bool) -> tuple[int, str]:
    """Return how many trials share a GPU, and why: what was not measured lets it have one."""
    takes = f"a trial takes up to {words.size(1e6 * need.memory_mb)}"
    if gpu is None or not need.memory_mb:
        what = "its memory" if gpu is None else "a trial's memory"
        return 1, need.alone or f"{what} is not known"
    free = _free(gpu)
    by_memory = fit(gpu.free_mb, need.memory_mb)
    if not by_memory and fit(gpu.total_mb, need.memory_mb):
        return 0, f"{free}, {takes}"
    if need.alone or need.busy is None:
        return 1, need.alone or "how much of its time a trial takes is not known"
    if gpu.exclusive and not mps:
        return 1, "it takes one process at a time (compute mode Exclusive_Process)"
    by_compute = max(1, round((OVERLAP if mps else 1.0) / max(need.busy, 0.01)))
    kept = f"one kept it busy {100 * need.busy:.0f} % of the time{', MPS runs' if mps else ''}"
    why = f"memory for {by_memory} ({takes}, {free}), compute for {by_compute} ({kept}), cores for {cores}"
    return max(1, min(by_memory, by_compute, cores)), why


def _free(gpu: Gpu) -> str:
    return f"{words.size(1e6 * gpu.free_mb)} of {words.size(1e6 * gpu.total_mb)} are free"


def explain(backend: BackendSpec, machine: Machine, need: Need) -> str:
    """Return how many trials share each GPU and why, GPUs that are alike together.

    Where the study says how many, name the GPUs of which others have taken most of the memory; empty where there are none.
    """
    alike: dict[tuple[int, str], list[str]] = {}
    shares = _shares(backend, machine, need)
    if not shares and backend.gpus(found=True):
        taken = {gpu: known for gpu, known in machine.known.items() if known.free_mb < known.total_mb / 2}
        return "; ".join(f"GPU {gpu}: {_free(known)}" for gpu, known in taken.items())
    for gpu, found in shares.items():
        alike.setdefault(found, []).append(gpu)
    return "; ".join(
        f"{words.plural(count, 'trial') if count else 'no trial'} on "
        f"{'each GPU' if len(alike) == 1 < len(gpus) else 'GPU ' + ', '.join(gpus)}: {why}"
        for (count, why), gpus in alike.items()
    )


def roomiest(slots: Sequence[Slot], machine: Machine) -> Slot:
    """Return the first of the slots whose GPUs have most memory free."""
    return max(
        slots, key=lambda slot: min((machine.known[g].free_mb for g in slot.devices if g in machine.known), default=0.0)
    )


def gpus_of(slots: Sequence[Slot]) -> float:
    """Return the GPUs of one trial; trials that share one have a fraction each."""
    devices = {device for slot in slots for device in slot.devices}
    return len(devices) / len(slots) if any(len(slot.devices) == 1 for slot in slots) else float(len(slots[0].devices))


def describe(slots: Sequence[Slot]) -> str:
    """Return how many trials run at a time and on what.

    >>> describe([Slot(threads=1), Slot(threads=1)]), describe([Slot(("0",)), Slot(("0",))])
    ('2 trials at a time, 1 thread each', '2 trials at a time, 2 to a GPU')
    """
    slot, most = slots[0], max(Counter(device for slot in slots for device in slot.devices).values(), default=0)
    share = words.plural(len(slot.devices), "GPU") if slot.devices else words.plural(slot.threads, "thread")
    ranks = f" for {slot.ranks} ranks" if slot.ranks > 1 else ""
    shared = f"{'' if len({*Counter(s.devices for s in slots).values()}) == 1 else 'up to '}{most} to a GPU"
    return f"{words.plural(len(slots), 'trial')} at a time, {shared if most > 1 else f'{share} each{ranks}'}"
