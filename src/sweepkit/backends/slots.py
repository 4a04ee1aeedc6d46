"""Shares out this machine among trials: which GPUs and how many threads each of them gets. Touches no CUDA."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sweepkit.study import words
from sweepkit.study.backends import gpus_here
from sweepkit.study.errors import InputError
from sweepkit.study.study import BackendSpec


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
        result = {"CUDA_VISIBLE_DEVICES": ",".join(devices), "OMP_NUM_THREADS": str(self.threads)}
        if self.ranks > 1:
            result |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(0 if len(devices) < len(self.devices) else rank),
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
class Machine:
    """What there is to share out."""

    gpus: tuple[str, ...]
    cores: int
    memory_mb: float

    @classmethod
    def here(cls) -> Machine:
        """Return this machine's GPUs, usable cores and available memory, within its control group's limits."""
        return cls(gpus_here(), _cores(), _memory_mb())


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


def plan(backend: BackendSpec, machine: Machine, *, trial_memory_mb: float = 0.0) -> list[Slot]:
    """Return the slots that trials run on, at least one.

    ``trial_memory_mb``: what one trial was seen to need, of its GPU if it has one, else of the machine; 0 when unknown.
    Raises InputError for what can never fit.
    """
    ranks, auto = backend.ranks_per_trial, backend.cpus_per_trial == "auto"
    cpus = 1 if backend.cpus_per_trial == "auto" else backend.cpus_per_trial
    gpus = backend.gpus(found=bool(machine.gpus))
    if gpus > len(machine.gpus):
        raise InputError(f"backend.gpus_per_trial: {gpus:g} asked for, this machine has {len(machine.gpus)}")
    if gpus > 1 and gpus != int(gpus):
        raise InputError(f"backend.gpus_per_trial: a fraction below 1 or a whole number, got {gpus:g}")
    if not auto and cpus * ranks > machine.cores:
        asked = f"{cpus} × {ranks} rank(s)"
        raise InputError(f"backend.cpus_per_trial: {asked} asked for, this machine has {machine.cores} cores")
    groups = _device_groups(machine.gpus, gpus)
    most = len(groups) or max(1, machine.cores // (ranks * cpus))
    if backend.parallel == "auto":
        by_memory = int(0.8 * machine.memory_mb / trial_memory_mb) if trial_memory_mb and not groups else most
        count = max(1, min(most, by_memory))
    else:
        count = backend.parallel
        if groups and count > most:
            there = f"{len(machine.gpus)} GPU(s) hold {most} trials of {gpus:g} GPU"
            raise InputError(f"backend.parallel: {count} asked for, {there}")
        if not auto and count > most:
            raise InputError(f"backend.parallel: {count} asked for, {machine.cores} cores hold {most} trials")
    threads = max(1, machine.cores // (count * ranks)) if auto else cpus
    return [Slot(groups[i] if groups else (), threads, ranks) for i in range(count)]


def _device_groups(gpus: tuple[str, ...], per_trial: float) -> list[tuple[str, ...]]:
    """Split GPUs into groups of ``per_trial``; below 1, each GPU appears as often as the fraction fits, in turns."""
    if per_trial == 0:
        return []
    if per_trial < 1:
        return [(gpu,) for _ in range(math.floor(1 / per_trial + 1e-9)) for gpu in gpus]
    size = int(per_trial)
    return [gpus[i : i + size] for i in range(0, len(gpus) - size + 1, size)]


def gpus_of(slots: Sequence[Slot]) -> float:
    """Return the GPUs of one trial; trials that share one have a fraction each."""
    devices = {device for slot in slots for device in slot.devices}
    return len(devices) / len(slots) if any(len(slot.devices) == 1 for slot in slots) else float(len(slots[0].devices))


def describe(slots: Sequence[Slot]) -> str:
    """Return how many trials run at a time and on what.

    >>> describe([Slot(threads=1), Slot(threads=1)])
    '2 trials at a time, 1 thread each'
    """
    slot = slots[0]
    share = words.plural(len(slot.devices), "GPU") if slot.devices else words.plural(slot.threads, "thread")
    ranks = f" for {slot.ranks} ranks" if slot.ranks > 1 else ""
    return f"{words.plural(len(slots), 'trial')} at a time, {share} each{ranks}"
