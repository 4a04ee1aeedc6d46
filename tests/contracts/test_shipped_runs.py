"""The shipped studies run as they are, each once: what was forecast, and what MLflow then knows."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from making import sweep
from sweepkit import results
from sweepkit.cli import studies
from sweepkit.events import Finished
from sweepkit.journal import TrialLog
from sweepkit.paths import Place
from sweepkit.study import Study
from sweepkit.tasks import load_task
from sweepkit.tasks.text import TextTask
from sweepkit.trackers.mlflow import tracking_uri

pytestmark = pytest.mark.slow
STUDIES = Path(__file__).parents[2] / "studies"


@dataclass(frozen=True)
class Shipped:
    """A shipped study, what was forecast, how long it then took, and the study as it ran."""

    name: str
    ahead: dict[str, Any]
    seconds: float
    study: Study


def run_whole(name: str, home: Path) -> Shipped:
    (home / "pyproject.toml").touch()
    shutil.copytree(STUDIES, home / "studies")

    def said(*arguments: str) -> str:
        process = sweep(*arguments, f"studies/{name}", cwd=home)
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output
        return output

    text = said("check", "--probe", "--json")
    ahead = json.loads(text[text.index("{") :])["forecast"]
    began = time.monotonic()
    said("run")
    seconds = time.monotonic() - began
    return Shipped(name, ahead, seconds, studies.stored(home / "runs" / name))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    return run_whole("digits", tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def spam(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    """The quickstart."""
    return run_whole("spam", tmp_path_factory.mktemp("spam"))


@pytest.fixture
def mlflow(spam: Shipped) -> Iterator[Any]:
    import mlflow

    mlflow.set_tracking_uri(tracking_uri(spam.study))
    mlflow.set_registry_uri(tracking_uri(spam.study))
    yield mlflow
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ.pop("MLFLOW_REGISTRY_URI", None)


@pytest.mark.parametrize("name", ["digits", "spam"])
def test_the_forecast_is_within_half_of_what_happened(name: str, request: pytest.FixtureRequest) -> None:
    ran: Shipped = request.getfixturevalue(name)
    happened = {"seconds": ran.seconds, **facts(ran.study)}
    told = {key: (ran.ahead.get(key, ran.ahead["corner"].get(key)), value) for key, value in happened.items()}
    logging.getLogger(__name__).warning("%s, forecast and found: %s", name, told)
    assert {key: pair for key, pair in told.items() if not 0.5 * pair[1] <= pair[0] <= 1.5 * pair[1]} == {}


def finishes(place: Place) -> Iterator[Finished]:
    for folder in sorted(place.trials.iterdir()):
        yield from (event for event in TrialLog(folder).refresh() if isinstance(event, Finished))


def facts(study: Study) -> dict[str, float]:
    """Return what a study that ran took, by the forecast's names."""
    trials = [row.seconds or 0.0 for row in results.read(study) if row.ending.counts]
    whole = [row.seconds or 0.0 for row in results.read(study) if row.ending.ranks]
    return {
        "peak_memory_mb": max(end.peak_memory_mb for end in finishes(study.place)),
        "whole_trial_seconds": sum(whole) / len(whole),
        "trial_seconds": sum(trials) / len(trials),
        "kept_bytes": float(sum(f.stat().st_size for f in study.place.trials.glob("*/best/**/*") if f.is_file())),
    }


def test_after_the_quickstart_mlflow_has_every_trial_with_what_was_searched_and_reached(
    spam: Shipped, mlflow: Any
) -> None:
    rows = {row.number: row for row in results.read(spam.study)}
    parents = "tags.`sweepkit.role` = 'study'"
    (parent,) = mlflow.search_runs(search_all_experiments=True, filter_string=parents)["run_id"]
    mine = f"tags.`mlflow.parentRunId` = '{parent}'"
    runs = mlflow.search_runs(search_all_experiments=True, filter_string=mine).set_index("tags.sweepkit.trial")
    assert sorted(map(int, runs.index)) == sorted(rows) == list(range(8))
    status = {"complete": "FINISHED", "pruned": "KILLED"}
    for number, row in rows.items():
        run = runs.loc[str(number)]
        assert {name: run[f"params.{name}"] for name in row.params} == {k: str(v) for k, v in row.params.items()}
        assert (run["metrics.objective"], run["status"]) == (row.value, status[row.ending])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_quickstarts_champion_reaches_its_f1_again(
    spam: Shipped, mlflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.metrics import f1_score

    monkeypatch.setattr(TextTask, "_tokenised", lambda self, rows: rows)
    validation = load_task(spam.study.task, spam.study.home).data()["validation"]
    names = validation.features["labels"].names
    champion = mlflow.pyfunc.load_model("models:/spam@champion")
    found = [names.index(label) for label in champion.predict(list(validation["text"]))["label"]]
    best = results.winners(spam.study, results.read(spam.study))[0]
    assert len(found) == 400
    assert f1_score(validation["labels"], found) == pytest.approx(best.value, abs=1e-6)


def test_the_quickstart_ends_with_its_report_beside_the_run(spam: Shipped) -> None:
    (page,) = (spam.study.place.root / "mlartifacts").rglob("report.html")
    assert page.read_bytes() == (spam.study.place.folder / "report.html").read_bytes()
