"""A study that ends with an answer, run once by the command line: MLflow, champion, confirmation, test split, export."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import toys
from making import sweep
from sweepkit.check.find import stored_study
from sweepkit.report.answer import Answer
from sweepkit.report.progress import snapshot
from sweepkit.report.rows import Reader, read
from sweepkit.study.study import StudyData
from sweepkit.study.words import span
from sweepkit.trackers.mlflow import link
from sweepkit.trackers.mlflow.address import tracking_uri

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


TOKEN, KEY = "opaque-0a1b2c3d4e5f6071", "sk-abcdefghijklmnopqrstuv"
"""Secrets in the environment of every command; the first also stands in a file that is not committed."""
SECRETS = {"SOME_SERVICE_TOKEN": TOKEN, "OPENAI_API_KEY": KEY}

STUDY = """
name: answered
question: Which learning rate tells ham from spam?
task:
  type: text-classification
  model: {model}
  data: {{train: train.csv, validation: validation.csv, test: test.csv}}
  metrics: [accuracy]
training: {{num_train_epochs: 3, logging_steps: 1, use_cpu: true, per_device_eval_batch_size: 16}}
objective: {{metric: eval_loss, direction: minimize}}
space:
  learning_rate: {{low: 1e-4, high: 2e-2, log: true}}
  per_device_train_batch_size: {{choices: [8, 16]}}
baseline: {{learning_rate: 1e-4, per_device_train_batch_size: 16}}
enqueue:                # two that learn, and one so slow that it is pruned
- {{learning_rate: 1e-2, per_device_train_batch_size: 8}}
- {{learning_rate: 6e-3, per_device_train_batch_size: 8}}
- {{learning_rate: 1.1e-4, per_device_train_batch_size: 16}}
sampler: {{type: random, seed: 3}}
pruner: {{type: median, n_startup_trials: 3, n_warmup_steps: 0}}
budget: {{trials: 6}}
confirm: {{top: 2, seeds: 3, test: once}}
backend: {{parallel: 1}}
tracking: {{register: answered-model}}
"""
SEARCHED = ("learning_rate", "per_device_train_batch_size")


@dataclass(frozen=True)
class Ran:
    """A study that ran, and what its command said."""

    study: StudyData
    said: str

    @property
    def root(self) -> Path:
        return self.study.place.root

    @property
    def runs(self) -> Any:
        """MLflow's children of the study's run that belong to the search, as a data frame."""
        return self.children("tags.`sweepkit.study` = 'answered'")

    def children(self, where: str) -> Any:
        import mlflow

        mine = f"tags.`mlflow.parentRunId` = '{self.parent.info.run_id}' and {where}"
        return mlflow.search_runs(search_all_experiments=True, filter_string=mine)

    @property
    def parent(self) -> Any:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri(self.study))
        (found,) = client.search_runs(
            [e.experiment_id for e in client.search_experiments()], "tags.`sweepkit.role` = 'study'"
        )
        return found

    def artifacts(self, pattern: str) -> list[Path]:
        return sorted((self.root / "mlartifacts").rglob(pattern))


def swept(*arguments: str, cwd: Path) -> str:
    """Return what a command said that must succeed."""
    process = sweep(*arguments, cwd=cwd, env={**os.environ, **SECRETS})
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Ran:
    home = tmp_path_factory.mktemp("answered")
    (home / "pyproject.toml").touch()
    (home / "study.yaml").write_text(STUDY.format(model=tiny_bert))
    for seed, (split, rows) in enumerate({"train": 96, "validation": 48, "test": 48}.items()):
        toys.tiny_csv(home / f"{split}.csv", rows, seed=seed)
    (home / "config.py").write_text("LIMIT = 1\n")
    (home / ".gitignore").write_text("runs/\nmlflow.db*\nmlartifacts/\n")
    for words in ("init -q", "add -A", "-c user.name=a -c user.email=a@b commit -q -m one"):
        subprocess.run(["git", *words.split()], check=True, cwd=home)
    (home / "config.py").write_text(f'LIMIT = 2\nservice = "{TOKEN}"\n')
    said = swept("run", "study.yaml", cwd=home)
    return Ran(stored_study(home / "runs" / "answered"), said)


@pytest.fixture
def mlflow(ran: Ran) -> Iterator[Any]:
    import mlflow

    mlflow.set_tracking_uri(tracking_uri(ran.study))
    mlflow.set_registry_uri(tracking_uri(ran.study))
    yield mlflow
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ.pop("MLFLOW_REGISTRY_URI", None)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_every_trial_is_found_by_its_parent_with_what_was_searched_and_reached(ran: Ran, mlflow: Any) -> None:
    told = {
        int(run["tags.sweepkit.trial"]): ([run[f"params.{name}"] for name in SEARCHED], run["metrics.objective"])
        for _, run in ran.runs.iterrows()
    }
    rows = read(ran.study)
    assert told == {row.number: ([str(row.params[name]) for name in SEARCHED], row.value) for row in rows}
    assert sorted(told) == list(range(6))


def test_statuses_agree_with_optuna(ran: Ran, mlflow: Any) -> None:
    import optuna

    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(ran.study.place.journal)))
    study = optuna.load_study(study_name="answered", storage=storage)
    told = {int(run["tags.sweepkit.trial"]): run["status"] for _, run in ran.runs.iterrows()}
    words = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
    assert told == {trial.number: words[trial.state.name] for trial in study.trials}
    assert set(told.values()) == {"FINISHED", "KILLED"}, "some were pruned, some were not"


def test_a_run_says_what_it_was_and_what_it_cost(ran: Ran, mlflow: Any) -> None:
    baseline = ran.runs.set_index("tags.sweepkit.trial").loc["0"]
    assert baseline["tags.mlflow.runName"] == "0000 baseline lr=1e-4 bs=16"
    assert baseline["tags.device"] == "cpu"
    assert baseline["metrics.system/attempts"] == 1
    assert baseline["metrics.system/duration_seconds"] > 0
    assert baseline["metrics.system/peak_memory_mb"] > 100
    assert baseline["params.per_device_eval_batch_size"] == "16"
    assert baseline["params.num_train_epochs"] == "3.0", "as the study says, though it is what it is anyway"
    assert baseline["params.logging_steps"] == "1"


def test_every_logged_step_is_a_metric_once(ran: Ran) -> None:
    from sweepkit.trial.events import Evaluated, Logged
    from sweepkit.trial.log import TrialLog

    expected = {}
    for row in read(ran.study):
        events = TrialLog(ran.study.place.trial(row.number)).refresh()
        named = [(name, e.step) for e in events if isinstance(e, (Logged, Evaluated)) for name in e.metrics]
        expected[row.mlflow_run] = sorted({pair for pair in named if pair[0] != "epoch"})
    database = sqlite3.connect(ran.root / "mlflow.db")
    question = (
        "select run_uuid, key, step from metrics where key not like 'system/%' and key not in ('epoch', 'objective')"
    )
    # A model's own metrics are told a second time, with its id; the table has one line for both.
    told: dict[str, list[tuple[str, int]]] = {}
    for run, key, step in database.execute(question):
        told.setdefault(run, []).append((key, step))
    database.close()
    assert {run: sorted(told[run]) for run in expected if run} == expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_champion_predicts_the_metric_of_its_evaluation_again(ran: Ran, mlflow: Any) -> None:
    champion = mlflow.pyfunc.load_model("models:/answered-model@champion")
    rows = rows_of(ran.root / "validation.csv")
    found = champion.predict([row["text"] for row in rows])
    said = zip(rows, found["label"], found["score"], strict=True)
    chances = [score if row["label"] == label else 1 - score for row, label, score in said]
    chosen = json.loads((ran.study.place.verdict_json).read_text())["chosen"]
    row = next(row for row in read(ran.study) if row.number == chosen)
    assert row.value is not None
    assert -sum(map(math.log, chances)) / len(chances) == pytest.approx(row.value, abs=1e-6)


def test_the_champion_has_an_example_and_a_signature(ran: Ran, mlflow: Any) -> None:
    info = mlflow.models.get_model_info("models:/answered-model@champion")
    assert info.signature.outputs.input_names() == ["label", "score"]
    (example,) = ran.artifacts("input_example.json")
    assert json.loads(example.read_text()) in [row["text"] for row in rows_of(ran.root / "validation.csv")]


def test_the_parent_holds_the_study_the_code_and_the_data(ran: Ran) -> None:
    parent = ran.parent
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, cwd=ran.root, capture_output=True, text=True)
    assert parent.data.tags["mlflow.source.git.commit"] == head.stdout.strip()
    (diff,) = ran.artifacts("*.diff")
    assert "+LIMIT = 2" in diff.read_text()
    (written,) = ran.artifacts("study/study.yaml")
    assert written.read_text() == (ran.root / "study.yaml").read_text()
    (resolved,) = ran.artifacts("study/resolved.json")
    assert json.loads(resolved.read_text())["study"]["sampler"]["seed"] == 3
    (used,) = parent.inputs.dataset_inputs
    assert json.loads(used.dataset.profile)["rows"] == {"train": 96, "validation": 48, "test": 48}
    assert used.dataset.digest in [path.name for path in (ran.root / "runs" / ".data").iterdir()]


def test_confirmation_runs_have_a_study_of_their_own_and_the_same_parent(ran: Ran, mlflow: Any) -> None:
    rows = Reader(ran.study, suffix="/confirm").rows()
    told = ran.children("tags.`sweepkit.study` = 'answered/confirm'")
    assert sorted(told["tags.sweepkit.trial"].map(int)) == [row.number for row in rows] == list(range(9))
    searched = [row.number for row in Answer(ran.study, read(ran.study)).top(2)]
    assert {row.confirm_of for row in rows} == {*searched, 0}


def test_the_compare_view_leaves_confirmation_runs_out(ran: Ran, mlflow: Any) -> None:
    where = link.view(ran.study, ran.parent.info.run_id, None)["searchFilter"]
    shown = mlflow.search_runs(search_all_experiments=True, filter_string=where)
    assert set(shown["run_id"]) == set(ran.runs["run_id"])
    assert len(shown) == 6


def test_confirmation_seeds_are_new_and_all_different(ran: Ran) -> None:
    def seeds(trials: Path) -> list[int | None]:
        return [json.loads(path.read_text())["seed"] for path in sorted(trials.glob("*/spec.json"))]

    searched, confirmed = (seeds(ran.study.place.folder / part / "trials") for part in ("", "confirm"))
    assert len(set(confirmed)) == len(confirmed) == 9
    assert None not in confirmed
    assert not {ran.study.seed, *searched} & {*confirmed}


def test_confirmation_counts_in_hours_and_not_in_trials(ran: Ran) -> None:
    spent = json.loads((ran.study.place.folder / "spent.json").read_text())
    runs = [row.seconds or 0.0 for row in Reader(ran.study, suffix="/confirm").rows()]
    assert len(read(ran.study)) == ran.study.budget.trials
    assert spent["slot_seconds"] > sum(runs)


def test_the_verdict_is_said_and_recorded(ran: Ran) -> None:
    verdict = json.loads((ran.study.place.verdict_json).read_text())
    for sentence in verdict["sentences"]:
        assert sentence.strip() in ran.said
    (answer,) = ran.artifacts("answer.json")
    assert json.loads(answer.read_text())["confirm"]["chosen"] == verdict["chosen"]
    assert "Test: " in ran.said and "t-test" in ran.said


def test_the_closing_summary_and_mlflow_say_what_to_do(ran: Ran) -> None:
    verdict = Answer.read(ran.study, read(ran.study)).verdict
    assert verdict is not None
    todo = verdict.conclusion()
    summary = " ".join(ran.said.partition("answered  done")[2].split())
    assert todo in summary
    assert ran.parent.data.tags["sweepkit.verdict"] == todo
    assert "confirmed" not in ran.said.lower(), "some pair is not distinguishable"


def test_how_the_run_ended_and_the_classes_of_its_data_are_recorded(ran: Ran) -> None:
    ended = json.loads(ran.study.place.outcome_json.read_text())
    assert ended == {"status": "done", "reason": "all trials of the budget are done"}
    counts = [sum(row["label"] == label for row in rows_of(ran.root / "validation.csv")) for label in ("ham", "spam")]
    assert json.loads(ran.study.place.data_json.read_text())["classes"]["validation"] == sorted(counts)


def test_the_baseline_is_not_pruned(ran: Ran) -> None:
    rows = read(ran.study)
    assert {str(row.ending) for row in rows} == {"complete", "pruned"}
    assert [str(row.ending) for row in rows if row.origin == "baseline"] == ["complete"]


def test_show_ends_with_the_verdict_and_counts_the_confirmation_runs_hours(ran: Ran) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(snapshot(ran.study))
    shown = console.export_text()
    verdict = json.loads((ran.study.place.verdict_json).read_text())
    assert all(sentence in shown for sentence in verdict["sentences"])
    assert "(trial 0: " not in shown, "the gain over the baseline is the verdict's"
    assert "on the test split" in shown and "evaluated once on 48 rows: test_" in shown
    assert "9 of 9 confirmation runs" in shown
    runs = [row.seconds or 0.0 for row in Reader(ran.study, suffix="/confirm").rows()]
    assert f"confirmation {span(sum(runs))}" in shown


def test_the_test_split_is_used_once_however_often_the_command_runs(ran: Ran) -> None:
    before = json.loads((ran.study.place.test_json).read_text())
    assert before["rows"] == 48 and 0 <= before["metrics"]["test_accuracy"] <= 1
    said = swept("run", "study.yaml", cwd=ran.root)
    assert f"the test split was used on {before['at']}" in said
    assert "importing torch" not in said and "all trials of the budget are done" in said
    assert json.loads((ran.study.place.test_json).read_text()) == before


@pytest.mark.slow
def test_an_exported_model_is_trained_again_to_the_same_value(ran: Ran, tmp_path: Path) -> None:
    swept("best", "answered", "--export", str(tmp_path / "out"), cwd=ran.root)
    command = [sys.executable, "train.py"]
    trained = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True, timeout=600, check=False)
    assert trained.returncode == 0, trained.stderr
    found = json.loads(trained.stdout.strip().splitlines()[-1])
    verdict = json.loads((ran.study.place.verdict_json).read_text())
    (estimate,) = [e for e in verdict["estimates"] if e["number"] == verdict["chosen"]]
    assert found["metric"] == "eval_loss"
    assert found["value"] == pytest.approx(estimate["searched"], abs=1e-6)


def test_the_report_lies_beside_the_studys_run(ran: Ran) -> None:
    assert "logged to MLflow with the study's run" in swept("report", "answered", cwd=ran.root)
    (page,) = ran.artifacts("report.html")
    assert page.read_bytes() == (ran.study.place.folder / "report.html").read_bytes()
    assert ran.parent.info.run_id in page.parts


def test_no_secret_is_in_anything_the_study_wrote(ran: Ran, tmp_path: Path) -> None:
    swept("report", "answered", cwd=ran.root)
    swept("best", "answered", "--export", str(tmp_path / "out"), cwd=ran.root)
    found = [ran.root / "mlflow.db", *(ran.root / "runs").rglob("*"), *(ran.root / "mlartifacts").rglob("*")]
    files = [path for path in [*found, *tmp_path.rglob("*")] if path.is_file()]
    assert {"report.html", "train.py", "optuna.journal", "console.log"} <= {path.name for path in files}
    for secret in (TOKEN, KEY):
        assert secret not in ran.said
        assert [path for path in files if secret.encode() in path.read_bytes()] == []
    private = {"study.json", "spec.json", "events.jsonl", "console.log", "warm.log", "inspect.log"}
    assert {oct(path.stat().st_mode & 0o777) for path in files if path.name in private} == {"0o600"}
