"""The GPUs of this machine, asked of ``nvidia-smi``: CUDA itself, once touched, would fail in every forked trial."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from shutil import which

MIB = 2**20 / 1e6
"""Megabytes in the unit of ``nvidia-smi``."""
LEAST_SECONDS = 2.0
"""How long a GPU has to be watched: ``nvidia-smi`` looks back for up to a second, into what was before."""


@dataclass(frozen=True)
class Gpu:
    """What is known of a GPU at the moment."""

    total_mb: float
    free_mb: float
    exclusive: bool = False
    """Whether its compute mode lets one process in at a time."""


def gpus_here() -> tuple[str, ...]:
    """Return the ids of this machine's GPUs, as CUDA_VISIBLE_DEVICES takes them.

    Where that is set, its ids up to the first that is none, as CUDA reads it. A GPU that is partitioned is its MIG devices.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        ids = (part.strip() for part in visible.split(","))
        return tuple(dict.fromkeys(takewhile(re.compile(r"\d+|(GPU|MIG)-\S+").fullmatch, ids)))
    listed = _listed(which("nvidia-smi"))
    return tuple(device for gpu, (_, *partitions) in listed.items() for device in partitions or [gpu])


def wrong_gpus() -> str:
    """Return what is wrong with the ids of :func:`gpus_here`, or why there are none where there should be; else empty.

    What ``nvidia-smi`` does not list, CUDA ignores together with all after it.
    """
    listed = _listed(which("nvidia-smi"))
    for gpu in gpus_here() if listed else ():
        known = any(each.startswith(gpu) for uuids in listed.values() for each in uuids)
        if gpu not in listed and not known and not gpu.startswith("MIG-GPU-"):
            return f"CUDA_VISIBLE_DEVICES: {gpu} is none of this machine's GPUs; nvidia-smi -L lists them"
    if which("nvidia-smi") and not listed and "CUDA_VISIBLE_DEVICES" not in os.environ:
        return "nvidia-smi is installed, but finds no GPU"
    return ""


def gpu_order() -> dict[str, str]:
    """Return what makes CUDA number the GPUs as :func:`gpus_here` does; empty where the user has numbered them."""
    return {} if "CUDA_VISIBLE_DEVICES" in os.environ else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def look(ids: Iterable[str]) -> dict[str, Gpu]:
    """Return id → GPU, without those of which nothing is known: a partitioned one, or an index that may mean another GPU.

    CUDA numbers different models by their speed unless CUDA_DEVICE_ORDER says otherwise, ``nvidia-smi`` by their bus.
    """
    asked = "index,uuid,name,memory.total,memory.free,compute_mode,mig.mode.current"
    rows = [line.split(", ") for line in _smi(f"--query-gpu={asked}", "--format=csv,noheader,nounits")]
    rows = [row for row in rows if len(row) == 7]
    order = gpu_order().get("CUDA_DEVICE_ORDER", os.environ.get("CUDA_DEVICE_ORDER"))
    same_order = order == "PCI_BUS_ID" or len({row[2] for row in rows}) == 1
    found: dict[str, Gpu] = {}
    for each in ids:
        named = [
            row for row in rows if (same_order and row[0] == each) or (each[:4] == "GPU-" and row[1].startswith(each))
        ]
        if len(named) == 1 and named[0][-1] != "Enabled":
            total, free, mode = named[0][3:6]
            with suppress(ValueError):  # [N/A], where memory is shared with the machine
                found[each] = Gpu(float(total) * MIB, float(free) * MIB, mode == "Exclusive_Process")
    return found


def mps_runs() -> bool:
    """Return whether NVIDIA's MPS daemon runs, through which kernels of several processes share a GPU at the same time."""
    folder = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"))
    try:
        pid = int((folder / "nvidia-cuda-mps-control.pid").read_text())
        return Path(f"/proc/{pid}/comm").read_text().startswith("nvidia-cuda-mps")
    except (OSError, ValueError):
        return False


class Busy:
    """Watches how much of the time a GPU runs kernels, whoever's, from its making until :meth:`share`."""

    def __init__(self, gpu: str) -> None:
        command = [
            "nvidia-smi",
            "-i",
            gpu,
            "--query-gpu=utilization.gpu",
            "--format=csv,noheader,nounits",
            "-lms",
            "200",
        ]
        self._since = time.monotonic()
        self._process: subprocess.Popen[str] | None = None
        with suppress(OSError):
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def share(self) -> float | None:
        """Return the largest share seen, from 0 to 1; None where nothing could be seen, or not for long enough."""
        if self._process is None:
            return None
        watched = time.monotonic() - self._since
        self._process.terminate()
        said = [int(word) / 100 for word in self._process.communicate()[0].split() if word.isdigit()]
        return max(said) if said and watched >= LEAST_SECONDS else None


@cache
def _listed(program: str | None) -> dict[str, list[str]]:
    """Return number → UUIDs of the GPU and of its partitions."""
    found: dict[str, list[str]] = {}
    for line in _smi("-L") if program else ():
        uuid = re.search(r"\(UUID: (\S+)\)", line)
        if uuid and line.startswith("GPU "):
            found[line.removeprefix("GPU ").partition(":")[0]] = [uuid[1]]
        elif uuid and found:
            list(found.values())[-1].append(uuid[1])
    return found


def _smi(*arguments: str) -> list[str]:
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()
