"""The studies that come with sweepkit: each is without a mistake, and a shortened run ends with an answer.

The shortened runs share one project, two at a time. Each commit runs three of them, the long tests all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import toys
from making import spec, sweep
from sweepkit.check.study_file import load_study
from sweepkit.cli import app
from sweepkit.tasks.load import load_task
from sweepkit.tasks.prepared import prepare
from sweepkit.trial.log import TrialLog
from sweepkit.trial.objective import build_trainer

pytestmark = pytest.mark.real


STUDIES = Path(__file__).parents[2] / "studies"
FILES = sorted(str(file.relative_to(STUDIES)) for file in STUDIES.glob("*/*.yaml"))
RUN = ("imdb/study.yaml", "spam/study.yaml", "verses/lora.yaml")
FEWER = ("task.train_samples=64", "task.eval_samples=16")
"""For tasks that can read less."""
SHORT = (
    *("budget.trials=2", "training.max_steps=2", "confirm=null", "pruner.type=none"),
    *("training.eval_strategy=steps", "training.eval_steps=1"),
)
SHORTER = dict.fromkeys(FILES, SHORT) | {
    file: (*SHORT, *FEWER) for file in FILES if file.split("/")[0] in ("freesolv", "spam", "verses")
}
# Full size is little on the stand-ins: only the number of trials is cut.
SHORTER["imdb/study.yaml"] = ("budget.trials=2", "confirm=null")


@pytest.mark.parametrize("file", FILES)
def test_a_shipped_study_has_no_mistake(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")  # imdb's model and data lie on the hub
    done = CliRunner().invoke(app, ["check", str(STUDIES / file)])
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the studies' folder, copied to a project where stand-ins lie under the names that imdb has on the hub."""
    project = tmp_path_factory.mktemp("shipped")
    (project / "pyproject.toml").touch()
    shutil.copytree(STUDIES, project / "studies")
    toys.tiny_bert(project / "studies" / "imdb" / "bert-base-uncased")
    for split, rows in {"train": 64, "test": 16, "unsupervised": 16}.items():
        toys.tiny_csv(project / "stanfordnlp" / "imdb" / f"{split}.csv", rows)
    return project / "studies"


@pytest.fixture(scope="module", params=[RUN, pytest.param(FILES, marks=pytest.mark.slow)], ids=["some", "all"])
def runs(studies: Path, request: pytest.FixtureRequest) -> Mapping[str, tuple[int, str]]:
    """Return what became of a shortened run of each study: its exit code and output."""
    files = request.param

    def run(file: str) -> tuple[int, str]:
        settings = [word for setting in SHORTER[file] for word in ("--set", setting)]
        process = sweep(
            "run", f"studies/{file}", *settings, cwd=studies.parent, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        output, _ = process.communicate(timeout=600)
        return process.returncode, output

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(files, pool.map(run, files), strict=True))


def test_a_shortened_run_of_a_shipped_study_ends_with_an_answer(runs: Mapping[str, tuple[int, str]]) -> None:
    assert {file: output for file, (code, output) in runs.items() if code or "2 complete" not in output} == {}


def one_by_one(file: str, studies: Path, backend: str) -> list[dict[str, Any]]:
    """Return the trials of a shortened run, one after the other on a backend."""
    settings = [word for setting in SHORTER[file] for word in ("--set", setting)]
    way = ("--fresh", "--backend", backend, "--parallel", "1")
    output, _ = sweep("run", f"studies/{file}", *settings, *way, cwd=studies.parent).communicate(timeout=600)
    assert "2 complete" in output, output
    shown, _ = sweep("show", f"studies/{file}", "--json", cwd=studies.parent).communicate(timeout=180)
    return [
        {key: trial[key] for key in ("number", "ending", "params", "value")} for trial in json.loads(shown)["trials"]
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("file", FILES)
def test_a_shipped_study_gives_the_same_on_ray(file: str, studies: Path) -> None:
    pytest.importorskip("ray", reason="Ray Tune is missing; pip install 'sweepkit[ray]'")
    assert one_by_one(file, studies, "ray") == one_by_one(file, studies, "optuna")


@pytest.mark.usefixtures("runs")
def test_imdb_evaluates_each_epoch_and_keeps_the_best_checkpoint(studies: Path) -> None:
    log = TrialLog(load_study(studies / "imdb" / "study.yaml").study.place.trial(0))
    assert [evaluation.epoch for evaluation in log.evaluations] == [1, 2, 3]
    best = max(log.evaluations, key=lambda evaluation: (evaluation.metrics["eval_accuracy"], -evaluation.number))
    assert log.best_checkpoint is not None
    assert log.best_checkpoint.evaluation == best.number


def test_weights_saved_under_other_names_than_the_models_are_read_back(project: Path) -> None:
    study = load_study(STUDIES / "digits" / "study.yaml").study.model_copy(update={"name": "toy"}).at(project)
    task = load_task(load_study(STUDIES / "digits" / "study.yaml").study.task, STUDIES / "digits")
    prepare(task, study.place.data)
    made = [
        build_trainer(study, spec(project, number, {}, seed=number), task, study.by_consumer({}), None)
        for number in (1, 2)
    ]
    first, second = made
    first.save_model(str(project / "saved"))
    second._load_from_checkpoint(str(project / "saved"))
    assert all((second.model.state_dict()[name] == value).all() for name, value in first.model.state_dict().items())
