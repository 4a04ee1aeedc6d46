"""What ``sweep check --probe`` forecasts, held against what then happens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from making import sweep, toy_study
from sweepkit.check import check
from sweepkit.check.study_file import to_yaml
from sweepkit.driver.forecast import Forecast
from sweepkit.driver.probe import probe
from sweepkit.driver.run import run
from sweepkit.report.watch import Outcome
from sweepkit.study.paths import Place
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Finished
from sweepkit.trial.log import TrialLog

pytestmark = pytest.mark.real


BATCHES = {"per_device_train_batch_size": {"choices": [4, 8]}}


@dataclass(frozen=True)
class Both:
    """A forecast and what came of it."""

    study: StudyData
    ahead: Forecast
    outcome: Outcome


def finishes(place: Place) -> Iterator[Finished]:
    for folder in sorted(place.trials.iterdir()):
        yield from (event for event in TrialLog(folder).refresh() if isinstance(event, Finished))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """A study whose trials last 1 to 2 seconds for its steps, and which takes a model of 4 MB."""
    home = tmp_path_factory.mktemp("probed")
    (home / "pyproject.toml").touch()
    study = toy_study(
        home,
        space=BATCHES,
        task={"step_seconds": 0.08},
        training={"use_cpu": True, "model.ballast": 1_000_000},
        duplicates="train",
        sampler={"type": "random", "seed": 1},
        budget={"trials": 6},
        backend={"parallel": 2, "cpus_per_trial": 1},
    )
    ahead = probe(check(study))
    assert not study.place.study_json.exists() and not study.place.trials.exists(), "nothing is recorded"
    return Both(study, ahead, run(study))


def within_half(forecast: float, found: float) -> bool:
    return 0.5 * found <= forecast <= 1.5 * found


def test_time_is_forecast(toy: Both) -> None:
    trials = [row.seconds or 0.0 for row in toy.outcome.rows]
    assert within_half(toy.ahead.trial_seconds, sum(trials) / len(trials))
    begun = [datetime.fromisoformat(row.started or "").timestamp() for row in toy.outcome.rows]
    ended = [start + seconds for start, seconds in zip(begun, trials, strict=True)]
    assert toy.ahead.search_seconds is not None
    assert within_half(toy.ahead.search_seconds, max(ended) - min(begun))


def test_memory_is_forecast(toy: Both) -> None:
    assert within_half(toy.ahead.largest.peak_memory_mb, max(end.peak_memory_mb for end in finishes(toy.study.place)))


def test_disk_is_forecast(toy: Both) -> None:
    kept = sum(f.stat().st_size for f in toy.study.place.trials.glob("*/best/*"))
    assert within_half(toy.ahead.kept_bytes, kept)
    assert toy.ahead.host.data_bytes == sum(
        f.stat().st_size for f in toy.study.place.data.glob("*/**/*") if f.is_file()
    )


def test_a_trials_length_is_its_own_and_not_the_samples(toy: Both) -> None:
    assert sorted((one.steps, one.evaluations) for one in toy.ahead.measured) == [(12, 3)] * 3 + [(24, 3)] * 3


@pytest.mark.slow
def test_a_study_that_runs_out_of_memory_is_refused_with_what_fits(project: Path) -> None:
    study = toy_study(project, space={**BATCHES, "task.out_of_memory_above": {"choices": [2, 100]}})
    (project / "study.yaml").write_text(to_yaml(study))
    process = sweep("check", "study.yaml", "--probe", cwd=project)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 1, said
    told = r"! out of memory at bs=([48]) out_of_memory_above=2: out of memory: toy out of memory with a micro-batch of \1; "
    assert re.search(told, " ".join(said.split()))
    assert "a micro-batch of 2 fits" in " ".join(said.split())
