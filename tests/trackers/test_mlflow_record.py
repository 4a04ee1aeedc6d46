"""What a study's record in MLflow says to the person who opens it: its answer, its data, its runs' names and axes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import written_trials as trials
from sweepkit.report.answer import Answer
from sweepkit.study.study import StudyData
from sweepkit.tasks.references import package_path
from sweepkit.trackers.mlflow.address import tracking_uri
from sweepkit.trackers.mlflow.tracker import MLflowTracker
from sweepkit.trial.trial import Ending, Trial

pytestmark = pytest.mark.real


@pytest.fixture
def study(home: Path) -> StudyData:
    return trials.toy_study(home)


def delivered(study: StudyData, rows: list[Trial], **more: Any) -> MLflowTracker:
    """Return a tracker that opened and delivered these rows."""
    tracker = MLflowTracker(study, lambda: rows, **more)
    tracker.open()
    tracker.sync()
    return tracker


def runs(study: StudyData) -> dict[str, Any]:
    """Return MLflow's runs by their names."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri(study))
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def history(study: StudyData, name: str, metric: str) -> list[tuple[int, float]]:
    """Return (step, value) of a metric of the run of this name, as the store has them."""
    from mlflow.tracking import MlflowClient

    points = MlflowClient(tracking_uri(study)).get_metric_history(runs(study)[name].info.run_id, metric)
    return [(point.step, point.value) for point in points]


def test_the_parent_has_the_answer_in_numbers_and_in_its_description(study: StudyData) -> None:
    rows = [trials.whole(study, 0), trials.whole(study, 1), trials.whole(study, 2, Ending.pruned)]
    for _ in range(2):
        delivered(study, rows).close(Answer(study, rows).record())
    parent = runs(study)["toy"]
    best, base = (rows[number].values[0] for number in (1, 0))
    assert parent.data.metrics == {
        "study/result": best,
        "study/best": best,
        "study/baseline": base,
        "study/gain": pytest.approx(0.001),
        "study/trials": 3,
        "study/complete": 2,
        "study/pruned": 1,
        "study/infeasible": 0,
        "study/diverged": 0,
        "study/failed": 0,
    }
    assert parent.data.tags["mlflow.note.content"].splitlines()[:3] == [
        "eval_f1 0.7779. Trial 1, the best of 3 trials: 0.0010 better than the baseline (trial 0: 0.7769).",
        "",
        "Which learning rate?",
    ]
    assert history(study, "toy", "study/result") == [(3, best)], "said twice, recorded once"
    rows.append(trials.whole(study, 4))
    delivered(study, rows).close(Answer(study, rows).record())
    assert history(study, "toy", "study/result") == [(3, best), (4, rows[-1].values[0])]
    assert runs(study)["toy"].data.metrics["study/result"] == rows[-1].values[0]


def test_a_study_without_an_answer_says_why(study: StudyData) -> None:
    rows = [trials.whole(study, 0, Ending.failed, cause="no")]
    delivered(study, rows).close(Answer(study, rows).record(status="failed", reason="no trial completed"))
    parent = runs(study)["toy"]
    assert (parent.info.status, parent.data.metrics["study/failed"]) == ("FAILED", 1)
    assert "study/result" not in parent.data.metrics
    assert parent.data.tags["mlflow.note.content"].startswith("Failed: no trial completed.\n\nWhich learning rate?")


def test_the_parent_starts_with_the_study_before_its_trials(study: StudyData) -> None:
    study.place.folder.mkdir(parents=True)
    study.place.study_json.write_text(json.dumps({"id": "abc", "created": "2023-11-14T00:00:00", "study": {}}))
    rows = [trials.whole(study, 0), trials.whole(study, 1)]
    delivered(study, rows)
    found = sorted(runs(study).values(), key=lambda run: run.info.start_time)
    assert found[0].info.run_name == "toy"
    study.place.study_json.write_text(json.dumps({"id": "other", "created": "2038-01-01T00:00:00", "study": {}}))
    again = trials.toy_study(study.home, name="toy", tracking={"experiment": "clock"})
    delivered(again, rows)
    mine = _runs_of(again, "other")
    assert min(mine, key=lambda run: run.info.start_time).data.tags["sweepkit.role"] == "study"
    assert max(run.info.start_time for run in mine) - min(run.info.start_time for run in mine) == 1, "a clock was wrong"


def _runs_of(study: StudyData, id_: str) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri(study))
    where = f"tags.`sweepkit.id` = '{id_}'"
    return list(client.search_runs([e.experiment_id for e in client.search_experiments()], where))


PACKAGED = "package:sklearn/datasets/data/iris.csv"


@pytest.mark.parametrize(
    ("task", "kind", "says"),
    [
        (
            {"type": "text-classification", "data": {"name": "imdb", "config": "plain_text", "revision": "main"}},
            "hugging_face",
            {"path": "imdb", "config_name": "plain_text", "revision": "main", "data_files": None},
        ),
        (
            {"type": "text-classification", "data": {"train": "a.csv", "validation": ["b.csv", "https://x.org/c.csv"]}},
            "hugging_face",
            {"path": "csv", "data_files": {"train": ["~/a.csv"], "validation": ["~/b.csv", "https://x.org/c.csv"]}},
        ),
        (
            {"type": "text-classification", "data": {"path": "part-*.jsonl.gz"}},
            "hugging_face",
            {"path": "json", "data_files": {"train": ["~/part-*.jsonl.gz"]}},
        ),
        (
            {"type": "text-classification", "data": {"path": "rows", "format": "tsv"}},
            "hugging_face",
            {"path": "csv", "data_files": {"train": ["~/rows"]}},
        ),
        (
            {"type": "text-classification", "data": {"path": PACKAGED}},
            "hugging_face",
            {"path": "csv", "data_files": {"train": [str(package_path(PACKAGED))]}},
        ),
        (
            {"type": "text-classification", "data": {"path": "package:gone_for_good/a.csv"}},
            "hugging_face",
            {"path": "csv", "data_files": {"train": ["package:gone_for_good/a.csv"]}},
        ),
        (
            {"type": "image-classification", "data": {"path": "photos"}},
            "hugging_face",
            {"path": "imagefolder", "data_files": {"train": ["~/photos/**"]}},
        ),
        (
            {"type": "text-classification", "data": {"train": [f"{number:060}.csv" for number in range(2000)]}},
            "hugging_face",
            {"path": "csv", "data_files": None},
        ),
        (
            {"path": "task.py:Reviews"},
            "code",
            {"tags": {"mlflow.source.type": "LOCAL", "mlflow.source.name": "task.py:Reviews"}},
        ),
        ({"pickle": "task.pickle"}, "code", {"tags": {"mlflow.source.type": "LOCAL", "mlflow.source.name": "toy"}}),
    ],
)
def test_mlflow_reads_the_source_of_the_data(home: Path, task: Any, kind: str, says: dict[str, Any]) -> None:
    import mlflow.data

    study = trials.toy_study(home, task=task)
    data = trials.prepared(home / "runs" / ".data" / "0123", {"train": 400})
    delivered(study, [trials.whole(study, 0)], data=data)
    wanted = json.loads(json.dumps(says).replace("~", str(home)))
    for run in runs(study).values():
        (used,) = run.inputs.dataset_inputs
        source = mlflow.data.get_source(used)
        found = source.to_dict()
        assert (source._get_source_type(), {name: found[name] for name in wanted}) == (kind, wanted)


def test_the_schema_is_that_of_the_prepared_rows(study: StudyData, home: Path) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
    from mlflow.types.schema import Schema

    features = Features(
        {
            "input_ids": List(Value("int32")),
            "grid": List(List(Value("float32"))),
            "labels": ClassLabel(names=["ham", "spam"]),
            "score": Value("float64"),
            "text": Value("string"),
            "picture": Image(),
        }
    )
    row = {"input_ids": [[1]], "grid": [[[0.5]]], "labels": [0], "score": [0.5], "text": ["a"], "picture": [None]}
    data = home / "runs" / ".data" / "0123"
    DatasetDict({"train": Dataset.from_dict(row, features)}).save_to_disk(str(data))
    delivered(study, [trials.whole(study, 0)], data=trials.prepared(data, {"train": 1}))
    (used,) = runs(study)["toy"].inputs.dataset_inputs
    columns = Schema.from_json(json.dumps(json.loads(used.dataset.schema)["mlflow_colspec"]))
    assert {column.name: str(column.type) for column in columns} == {
        "input_ids": "Array(integer)",
        "grid": "Array(Array(float))",
        "labels": "DataType.long",
        "score": "DataType.double",
        "text": "DataType.string",
        "picture": "Any",
    }


def test_a_trial_stopped_again_at_the_same_step_has_its_costs_once(study: StudyData) -> None:
    for attempt in (1, 2):
        stop = trials.finished(0, Ending.stopped, step=0, attempt=attempt)
        trials.write(study, 0, [trials.started(0, attempt=attempt), stop])
        delivered(study, [trials.row(0, Ending.stopped)])
    end = trials.finished(0, Ending.complete, attempt=3)
    trials.write(study, 0, [trials.started(0, attempt=3), *trials.training(0, range(1, 31), attempt=3), end])
    delivered(study, [trials.row(0, Ending.complete)])
    name = "0000 baseline lr=3e-5 bs=16"
    assert history(study, name, "system/attempts") == [(30, 3.0)]
    assert history(study, name, "system/duration_seconds") == [(30, 60.0)]
    for metric in runs(study)[name].data.metrics:
        assert max(Counter(step for step, _ in history(study, name, metric)).values()) == 1, metric


def test_a_confirmation_run_has_the_name_of_the_trial_it_repeats(study: StudyData) -> None:
    delivered(study, [trials.whole(study, 0), trials.whole(study, 7)])
    again = replace(study.place, name="toy/confirm")
    confirmed = [
        trials.row(number, Ending.failed, params=trials.values(7), confirm_of=7, seed=1_000_042 + number, origin="")
        for number in range(2)
    ]
    delivered(study, confirmed, place=again)
    assert set(runs(study)) == {
        "toy",
        "0000 baseline lr=3e-5 bs=16",
        "0007 lr=2.4e-4 bs=16",
        "confirm 0007 seed=1000042 lr=2.4e-4 bs=16",
        "confirm 0007 seed=1000043 lr=2.4e-4 bs=16",
    }
