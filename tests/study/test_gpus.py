"""Which GPUs a machine has, by what nvidia-smi and the environment say: a script stands for the program."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from making import wait_until
from sweepkit.study import gpus
from sweepkit.study.gpus import MIB, Busy, Gpu, gpu_order, gpus_here, look, mps_runs, wrong_gpus

Machine = Callable[..., None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a function that gives this machine GPUs: what ``nvidia-smi`` lists, its rows, and how busy it says they are."""

    def make(listed: str = "", rows: str = "", busy: str = "") -> None:
        for name, text in (("listed", listed), ("rows", rows), ("busy", busy)):
            (tmp_path / name).write_text(text)
        program = tmp_path / "nvidia-smi"
        program.write_text(
            f'#!/bin/sh\ncd {tmp_path}\ncase "$*" in -L) cat listed;; *-lms*) cat busy; : > said; exec tail -f /dev/null;;'
            " *) cat rows;; esac\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return make


LISTED = "GPU 0: NVIDIA A100 (UUID: GPU-aaaa)\nGPU 1: NVIDIA A100 (UUID: GPU-bbbb)\n"
PARTITIONED = LISTED + "  MIG 1g.5gb Device 0: (UUID: MIG-1111)\n  MIG 2g.10gb Device 1: (UUID: MIG-2222)\n"
EQUAL = "0, GPU-aaaa, A100, 40000, 39000, Default, Disabled\n1, GPU-bbbb, A100, 40000, 1000, Exclusive_Process, [N/A]\n"
UNEQUAL = "0, GPU-aaaa, T4, 16000, 15000, Default, [N/A]\n1, GPU-bbbb, A100, 40000, 39000, Default, Disabled\n"


@pytest.mark.parametrize(
    ("visible", "ids"),
    [
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("2,0", ("2", "0")),
        ("0,0", ("0",)),
        ("0,-1,1", ("0",)),
        (" GPU-aaaa , MIG-1111 ", ("GPU-aaaa", "MIG-1111")),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(
    monkeypatch: pytest.MonkeyPatch, visible: str, ids: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert (gpus_here(), gpu_order()) == (ids, {})


@pytest.mark.parametrize(
    ("listed", "ids"), [(LISTED, ("0", "1")), (PARTITIONED, ("0", "MIG-1111", "MIG-2222")), ("No devices\n", ())]
)
def test_without_them_all_there_are_by_their_bus_and_a_partitioned_one_as_its_parts(
    machine: Machine, listed: str, ids: tuple[str, ...]
) -> None:
    machine(listed)
    assert (gpus_here(), gpu_order()) == (ids, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"})


@pytest.mark.parametrize(
    ("visible", "listed", "wrong"),
    [
        ("1,0", LISTED, ""),
        ("GPU-aa,MIG-2222,MIG-GPU-cccc/1/2", PARTITIONED, ""),
        ("0,2", LISTED, "CUDA_VISIBLE_DEVICES: 2 is none of this machine's GPUs; nvidia-smi -L lists them"),
        ("GPU-cccc", LISTED, "CUDA_VISIBLE_DEVICES: GPU-cccc is none of this machine's GPUs; nvidia-smi -L lists them"),
        ("", LISTED, ""),
        (None, LISTED, ""),
        (None, "No devices\n", "nvidia-smi is installed, but finds no GPU"),
        ("", "", ""),
        ("5", "", ""),
    ],
)
def test_gpus_that_are_not_there_are_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, visible: str | None, listed: str, wrong: str
) -> None:
    machine(listed)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert wrong_gpus() == wrong


def test_memory_is_known_of_a_gpu_by_its_number_or_its_uuid(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(rows=EQUAL)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    first, second = Gpu(40000 * MIB, 39000 * MIB), Gpu(40000 * MIB, 1000 * MIB, exclusive=True)
    assert look(("1", "0")) == {"1": second, "0": first}
    assert look(("GPU-bb", "GPU-aaaa")) == {"GPU-bb": second, "GPU-aaaa": first}
    assert look(("MIG-1111", "GPU-", "7")) == {}
    machine(rows="0, GPU-aaaa, GB10, [N/A], [N/A], Default, [N/A]\nwarning: something\n")
    assert look(("0",)) == {}
    machine(rows="0, GPU-aaaa, A100, 40000, 39000, Default, Enabled\n")
    assert look(("0",)) == {}, "a process gets a partition of it"


def test_of_different_gpus_a_number_means_what_cuda_takes_it_for(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(rows=UNEQUAL)
    assert set(look(("0", "1"))) == {"0", "1"}, "trials are told to number them as nvidia-smi does"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert look(("0", "1")) == {}, "CUDA's 0 is its fastest, unless told otherwise"
    assert set(look(("GPU-aaaa",))) == {"GPU-aaaa"}
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert look(("1",)) == {"1": Gpu(40000 * MIB, 39000 * MIB)}


def test_the_mps_daemon_runs_where_its_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert not mps_runs()
    (tmp_path / "nvidia-cuda-mps-control.pid").write_text(f"{os.getpid()}\n")
    assert not mps_runs(), "another process has its number by now"


@pytest.mark.real
def test_the_mps_daemon_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    daemon = tmp_path / "nvidia-cuda-mps-control"
    daemon.symlink_to("/bin/cat")
    with subprocess.Popen([daemon], stdin=subprocess.PIPE) as process:
        (tmp_path / "nvidia-cuda-mps-control.pid").write_text(f"{process.pid}\n")
        wait_until(mps_runs)
        process.communicate()


@pytest.mark.real
@pytest.mark.parametrize(
    ("said", "least", "share"), [("12\n97\n40\n", 0, 0.97), ("12\n97\n", 60, None), ("[N/A]\n", 0, None), ("", 0, None)]
)
def test_how_busy_a_gpu_is_is_the_most_that_was_seen(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, least: float, share: float | None
) -> None:
    monkeypatch.setattr(gpus, "LEAST_SECONDS", least)
    machine(busy=said)
    watched = Busy("GPU-aaaa")
    wait_until((tmp_path / "said").exists)
    assert watched.share() == share
