"""The shipped studies run as they are, each once: what was forecast, and what MLflow then knows.

``imdb`` is left out, as its model and data lie on the hub.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
import pytest

from making import sweep
from sweepkit.check.find import stored_study
from sweepkit.report.answer import Answer
from sweepkit.report.rows import CONFIRM, Reader, read
from sweepkit.study.study import StudyData
from sweepkit.tasks.load import load_task
from sweepkit.tasks.text import TextClassification
from sweepkit.trackers.mlflow.address import tracking_uri
from sweepkit.trial.events import Finished
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Trial

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1500)]
STUDIES = Path(__file__).parents[2] / "studies"
FILES = sorted(str(path.relative_to(STUDIES)) for path in STUDIES.glob("*/*.yaml") if path.parent.name != "imdb")


@dataclass
class Most:
    """The most there was at the moments that were looked at."""

    written_bytes: int = 0
    memory_mb: float = 0.0
    """Of all processes of trials, their warm process included, what they share counted once."""

    def look(self, project: Path, driver: int) -> None:
        """Take in how it is now."""
        self.written_bytes = max(self.written_bytes, written(project))
        try:
            there = psutil.Process(driver).children(recursive=True)
        except psutil.NoSuchProcess:
            return
        self.memory_mb = max(self.memory_mb, sum(map(proportional_mb, there)))


@dataclass(frozen=True)
class Shipped:
    """A shipped study, what was forecast of it, and what then happened."""

    study: StudyData
    ahead: Mapping[str, Any]
    seconds: float
    """From the command to its end."""
    most: Most

    @property
    def folders(self) -> list[Path]:
        """The trials' folders, those of the confirmation's runs among them."""
        return [path for path in self.study.place.folder.glob("**/trials/*") if path.is_dir()]

    @property
    def time(self) -> dict[str, float]:
        """What took how long, by the forecast's names; seconds of the wall clock."""
        rows, confirmed = read(self.study), Reader(self.study, suffix=CONFIRM).rows()
        return {
            "seconds": self.seconds,
            "search_seconds": passed(rows),
            "confirm_seconds": passed(confirmed),
            "trial_seconds": fmean(row.seconds or 0.0 for row in rows if row.ending.ranks),
        }

    @property
    def memory(self) -> dict[str, float]:
        """The largest resident memory that one trial's process reached, as the kernel counts it, and that of all together."""
        logs = [TrialLog(folder).refresh() for folder in self.folders]
        ends = [event for events in logs for event in events if isinstance(event, Finished)]
        return {"peak_memory_mb": max(end.peak_memory_mb for end in ends), "memory_mb": self.most.memory_mb}

    @property
    def disk(self) -> dict[str, float]:
        """What lies on disk in the end, by the forecast's names."""
        root = self.study.place.root
        best = [path.resolve() for path in self.study.place.folder.glob("**/trials/*/best")]
        return {
            "kept_bytes": sum(map(size, best)),
            "data_bytes": size(self.study.place.data),
            "disk_bytes": written(root),
        }


def passed(rows: list[Trial]) -> float:
    """Return how long it took from the first trial's start to the last one's end."""
    begun = [(datetime.fromisoformat(row.started).timestamp(), row.seconds or 0.0) for row in rows if row.started]
    return max(start + seconds for start, seconds in begun) - min(begun)[0] if begun else 0.0


def size(folder: Path) -> int:
    """Return how many bytes lie below a folder; what is gone before it is looked at does not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return total


def proportional_mb(process: psutil.Process) -> float:
    """Return a process's resident memory, what it shares with others divided among them; 0 where it is gone."""
    try:
        return float(process.memory_full_info().pss / 1e6)
    except psutil.Error:
        return 0.0


def written(project: Path) -> int:
    """Return how many bytes a study wrote into a project that has nothing else."""
    return size(project) - size(project / "studies")


def run_whole(file: str, home: Path) -> Shipped:
    (home / "pyproject.toml").touch()
    shutil.copytree(STUDIES, home / "studies")

    def said(*arguments: str) -> tuple[str, Most]:
        process, most = sweep(*arguments, f"studies/{file}", cwd=home), Most()
        while True:
            try:
                output, _ = process.communicate(timeout=0.5)
                assert process.returncode == 0, output
                return output, most
            except subprocess.TimeoutExpired:
                most.look(home, process.pid)

    text, _ = said("check", "--probe", "--json")
    found = json.loads(text[text.index("{") :])
    began = time.monotonic()
    _, most = said("run")
    seconds = time.monotonic() - began
    return Shipped(stored_study(home / "runs" / found["study"]["name"]), found["forecast"], seconds, most)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Shipped]:
    """Return a function that runs a shipped study, once for all tests."""
    return cache(lambda file: run_whole(file, tmp_path_factory.mktemp(file.replace("/", "-"))))


@pytest.fixture
def spam(shipped: Callable[[str], Shipped]) -> Shipped:
    """The quickstart."""
    return shipped("spam/study.yaml")


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


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("what", ["time", "memory", "disk"])
def test_the_forecast_is_within_half_of_what_happened(file: str, what: str, shipped: Callable[[str], Shipped]) -> None:
    ran = shipped(file)
    told = {
        name: (ran.ahead.get(name, ran.ahead["largest"].get(name)), found) for name, found in getattr(ran, what).items()
    }
    logging.getLogger(__name__).warning("%s, forecast and found: %s", file, told)
    bounds = (
        ("seconds", "search_seconds") if ran.ahead["prunes"] else ()
    )  # upper ones: what a pruner saves is not forecast
    wrong = {
        name: (ahead, found)
        for name, (ahead, found) in told.items()
        if not (0.5 * found <= ahead and (ahead <= 1.5 * found or name in bounds))
    }
    assert wrong == {}


@pytest.mark.parametrize("file", FILES)
def test_disk_never_holds_more_than_was_forecast(file: str, shipped: Callable[[str], Shipped]) -> None:
    ran = shipped(file)
    assert ran.most.written_bytes <= ran.ahead["disk_bytes"] + ran.ahead["running_bytes"]


def test_after_the_quickstart_mlflow_has_every_trial_with_what_was_searched_and_reached(
    spam: Shipped, mlflow: Any
) -> None:
    rows = {row.number: row for row in read(spam.study)}
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

    monkeypatch.setattr(TextClassification, "_tokenized", lambda self, rows: rows)
    validation = load_task(spam.study.task, spam.study.home).data()["validation"]
    names = validation.features["labels"].names
    champion = mlflow.pyfunc.load_model("models:/spam@champion")
    found = [names.index(label) for label in champion.predict(list(validation["text"]))["label"]]
    best = Answer(spam.study, read(spam.study)).winners[0]
    assert len(found) == 400
    assert f1_score(validation["labels"], found) == pytest.approx(best.value, abs=1e-6)


def test_the_quickstart_ends_with_its_report_beside_the_run(spam: Shipped) -> None:
    (page,) = (spam.study.place.root / "mlartifacts").rglob("report.html")
    assert page.read_bytes() == (spam.study.place.folder / "report.html").read_bytes()
