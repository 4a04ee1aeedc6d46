"""The main job, typed as a person types it: a new study of a csv, run unedited, its best model used without sweepkit."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toys
from making import sweep, toy_study
from sweepkit.check.study_file import load_study, to_yaml
from sweepkit.tasks.load import load_task

pytestmark = pytest.mark.real


def typed(*arguments: str, cwd: Path) -> tuple[int, str]:
    """Return a command's exit code and what it printed."""
    process = sweep(*arguments, cwd=cwd)
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


@dataclass(frozen=True)
class Ran:
    """A study that ``sweep new`` wrote and ``sweep run`` ran."""

    project: Path
    output: str
    trials: list[dict[str, Any]]
    best: dict[str, Any]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    project = tmp_path_factory.mktemp("project")
    (project / "pyproject.toml").touch()
    model = toys.tiny_bert(project / "tiny-bert")
    # Every fourth label is wrong, so that the recorded F1 is a number that one can miss.
    rows = [
        (text, label if number % 4 else ("spam", "ham")[number // 4 % 2])
        for number, (text, label) in enumerate(toys.messages(240))
    ]
    with (project / "my.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    kind = ("--kind", "text-classification", "--metric", "f1")
    code, output = typed("new", "mystudy", *kind, "--data", "my.csv", "--model", str(model), cwd=project)
    assert code == 0, output
    code, output = typed("run", "mystudy/study.yaml", cwd=project)
    assert code == 0, output
    trials = json.loads(typed("show", "mystudy", "--json", cwd=project)[1])["trials"]
    best = json.loads(typed("best", "mystudy", "--json", cwd=project)[1])["best"]
    return Ran(project, output, trials, best)


def test_a_new_study_of_string_labels_runs_unedited_to_its_budget(ran: Ran) -> None:
    assert len(ran.trials) == 20
    assert {trial["ending"] for trial in ran.trials} <= {"complete", "pruned"}


def test_the_run_ends_with_the_best_its_checkpoint_and_what_to_type_next(ran: Ran) -> None:
    ending = ran.output[ran.output.index("mystudy  done") :]
    said = (f"trial {ran.best['number']}", "baseline", "checkpoint", "sweep show", "sweep best", "sweep ui")
    assert [words for words in said if words not in ending] == []


def test_the_path_that_best_prints_loads_and_scores_the_recorded_f1(ran: Ran) -> None:
    from sklearn.metrics import f1_score
    from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

    code, path = typed("best", "mystudy", cwd=ran.project)
    assert code == 0
    model = AutoModelForSequenceClassification.from_pretrained(path.strip())
    assert model.config.id2label == {0: "ham", 1: "spam"}
    study = load_study(ran.project / "mystudy" / "study.yaml").study
    task = load_task(study.task, study.home)
    arguments = TrainingArguments(output_dir=str(ran.project / "out"), report_to="none", use_cpu=True)
    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=task.data_collator(),
        compute_metrics=lambda told: {"f1": f1_score(told.label_ids, np.argmax(told.predictions, axis=-1))},
    )
    found = trainer.evaluate(task.data()["validation"])["eval_f1"]
    assert 0.0 < ran.best["value"] < 1.0
    assert found == pytest.approx(ran.best["value"], abs=1e-12)


def test_mlflow_has_a_parent_a_child_per_trial_and_the_status_of_its_ending(ran: Ran) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{ran.project}/mlflow.db")
    (experiment,) = [found for found in client.search_experiments() if found.name == "mystudy"]
    runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    (parent,) = [run for run in runs.values() if "mlflow.parentRunId" not in run.data.tags]
    assert len(runs) == 21
    for trial in ran.trials:
        run = runs[trial["mlflow_run"]]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == {"complete": "FINISHED", "pruned": "KILLED"}[trial["ending"]]
        assert float(run.data.params["learning_rate"]) == trial["params"]["learning_rate"]
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "eval_f1")]
        assert steps == sorted(set(steps)) and steps


@pytest.mark.slow
def test_try_trains_one_trial_and_enqueue_puts_one_in_line(project: Path) -> None:
    (project / "study.yaml").write_text(to_yaml(toy_study(project, budget={"trials": 2})))
    code, output = typed("try", "study.yaml", "-p", "learning_rate=1e-3", cwd=project)
    assert code == 0 and "complete in" in output and "eval_score 1" in output
    assert not (project / "runs" / "toy" / "optuna.journal").exists()
    assert typed("enqueue", "study.yaml", "learning_rate=2e-3", cwd=project)[0] == 0
    assert typed("run", "study.yaml", cwd=project)[0] == 0
    first, second = json.loads(typed("show", "toy", "--json", cwd=project)[1])["trials"]
    assert first["params"] == {"use_cpu": True, "learning_rate": 2e-3}
    assert (first["ending"], second["ending"]) == ("complete", "complete")
