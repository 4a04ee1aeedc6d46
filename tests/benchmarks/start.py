"""Goal 8: how long a study takes to say something, to train, and to say that it has nothing left to train."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from measure import SCRIPT_SECONDS, Line, Size, environment, median, project, python, ratios, tool
from studies import digits_study

from sweepkit.check.study_file import to_yaml


def run(size: Size) -> list[Line]:
    """Start a study, start it again for one more trial, and again when it is done; beside it a fresh process's first step."""
    empty, fresh = [], []
    first: list[float] = []
    said: dict[str, list[float]] = {"first": [], "again": [], "done": []}
    for _ in range(size.repeats):
        began = time.time()
        python("-c", "pass", cwd=Path.cwd())
        empty.append(time.time() - began)
        began = time.time()
        fresh.append(tool("loop", rounds=1, steps=1, evaluate=False)["at"] - began)
        with project() as folder:
            one, more = (digits_study(folder, budget={"trials": trials}, tracking={}) for trials in (1, 2))
            for name, study in (("first", one), ("again", more), ("done", more)):
                (folder / "study.yaml").write_text(to_yaml(study))
                line, began, ended = _sweep_run(folder)
                first.append(line)
                step = study.place.trial(1 if name == "again" else 0) / "first-step"
                said[name].append((ended if name == "done" else float(step.read_text())) - began)
    beside = f"an empty Python {median(empty):.2f} s"
    detail, again = f"{median(said['first']):.1f} s and {median(fresh):.1f} s", f"{median(said['again']):.1f} s"
    what = "command → first step, ÷ a fresh process's"
    return [
        Line.of("8", "sweep run's first line", first, "s", at_most=0.3, detail=beside),
        Line.of("8", what, ratios(said["first"], fresh), "×", at_most=1.25, detail=detail),
        Line.of("8", "the same, started again", ratios(said["again"], fresh), "×", at_most=1.25, detail=again),
        Line.of("8", "a finished study says so", said["done"], "s", at_most=1.0, detail=beside),
    ]


def _sweep_run(folder: Path) -> tuple[float, float, float]:
    """Return the seconds to the first byte that ``sweep run`` prints, and when it was started and had ended."""
    began = time.time()
    command = [sys.executable, "-m", "sweepkit", "run", "study.yaml"]
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=folder, env=environment(), **both) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        first = time.time() - began
        printed, _ = process.communicate(timeout=SCRIPT_SECONDS)
    if process.returncode:
        raise RuntimeError(printed.decode(errors="replace")[-4000:])
    return first, began, time.time()
