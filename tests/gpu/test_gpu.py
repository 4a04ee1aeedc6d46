"""The measurement of trials on a GPU runs to its end: there, and with the smallest sizes on a CPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sweepkit.study.gpus import gpus_here

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.real, pytest.mark.slow]


def measured(*arguments: str) -> str:
    """Return what the measurement prints."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-m", "gpu", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_path_is_whole_without_a_gpu() -> None:
    said = measured("--dry")
    for line in (
        r"MiniLM: 2 at a time +\d+ trials/h +[\d.]+ × one at a time",
        r"GPT-2 with LoRA: 2 at a time +\d+ trials/h +[\d.]+ × one at a time",
        r"MiniLM: peak memory of a trial +\d+ MB +forecast \d+ MB",
        r"MiniLM: overhead of a trial +-?[\d.]+ s +a trial",
        r"MiniLM: a trial, bf16 +[\d.]+ s",
        r"MiniLM: a trial, torch_compile +[\d.]+ s",
        r"MiniLM: a trial, two ranks on one GPU, gloo +[\d.]+ s",
        r"MiniLM: out of memory +infeasible → complete +micro-batch × accumulation 8 × 1 → 4 × 2",
    ):
        assert re.search(line, said), said


@pytest.mark.gpu
@pytest.mark.skipif(not gpus_here(), reason="no GPU here")
def test_a_gpu_is_measured_in_under_eight_minutes() -> None:
    assert int(re.search(r"(\d+) s in all", measured())[1]) < 480  # type: ignore[index]
