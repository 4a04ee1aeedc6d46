"""What every benchmark needs: lines of the table, repetitions in turn, scripts in fresh processes. Knows no benchmark."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCRIPT_SECONDS = 300.0
"""How long a script of ours or of a baseline may take."""


@dataclass(frozen=True)
class Line:
    """One line of the table: what was measured, and the goal where there is one."""

    goal: str
    """Number of the goal in the README's list."""
    what: str
    figure: float
    unit: str
    """``s``, ``ms``, ``MB``; ``×`` for ratios, ``%`` for parts above one."""
    at_most: float | None = None
    at_least: float | None = None
    detail: str = ""
    """The medians behind a ratio, or what was set."""
    low: float | None = None
    """The lowest of the samples whose median the figure is, where there are several."""
    high: float | None = None

    @classmethod
    def of(cls, goal: str, what: str, samples: Iterable[float], unit: str, **more: Any) -> Line:
        """Return the line of the median of these samples."""
        found = sorted(samples)
        low, high = (found[0], found[-1]) if len(found) > 1 else (None, None)
        return cls(goal, what, statistics.median(found), unit, low=low, high=high, **more)

    @property
    def spread(self) -> str:
        """The lowest and the highest sample in words."""
        return "" if self.low is None or self.high is None else f"{self.low:.3g} to {self.high:.3g}"

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None for a line that only informs."""
        if self.at_most is not None:
            return self.figure <= self.at_most
        return None if self.at_least is None else self.figure >= self.at_least

    @property
    def wanted(self) -> str:
        """The goal in words."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g} {self.unit}"
        return "" if self.at_least is None else f"≥ {self.at_least:g} {self.unit}"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    quick: bool
    repeats: int

    def pick(self, whole: int, quick: int) -> int:
        """Return the count for this size."""
        return quick if self.quick else whole


def in_turn(repeats: int, **measured: Callable[[], float]) -> dict[str, list[float]]:
    """Return name → what so many calls returned; all are called once before any is called again."""
    samples: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(repeats):
        for name, measure in measured.items():
            samples[name].append(measure())
    return samples


def ratios(one: Iterable[float], other: Iterable[float]) -> list[float]:
    """Return the ratio of each pair that was measured in the same turn."""
    return [first / second for first, second in zip(one, other, strict=True)]


def median(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(values)


@contextmanager
def project() -> Iterator[Path]:
    """Give an empty project folder, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="sweepkit-bench-") as text:
        folder = Path(text)
        (folder / "pyproject.toml").write_text('[project]\nname = "bench"\nversion = "0"\n')
        yield folder


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a process that imports this toolkit and the benchmarks."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(HERE)]), **more}


def python(*arguments: str, cwd: Path) -> str:
    """Run Python in a fresh process and return what it printed; raises RuntimeError with its words when it fails."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SCRIPT_SECONDS,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"[-4000:])
    return done.stdout


def tool(name: str, **options: Any) -> dict[str, Any]:
    """Run ``tools/<name>.py`` in a fresh process and an empty project; return the JSON of its last line."""
    with project() as folder:
        printed = python(str(HERE / "tools" / f"{name}.py"), json.dumps(options), cwd=folder)
    found: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return found
