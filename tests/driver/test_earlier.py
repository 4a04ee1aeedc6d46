"""What a study takes from earlier ones: the best configurations that fit, once, and nothing that could harm."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from optuna.storages import InMemoryStorage

from making import toy_study
from sweepkit.check import check
from sweepkit.check.rules.searching import check_searching
from sweepkit.driver.earlier import earlier
from sweepkit.report.answer import Answer
from sweepkit.report.rows import read
from sweepkit.report.verdict import Candidate, judge, write_verdict
from sweepkit.search.proposer import Proposer
from sweepkit.search.records import Earlier
from sweepkit.search.search import Search
from sweepkit.search.storage import open_storage
from sweepkit.study.errors import InputError
from sweepkit.study.identity import identify
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Finished
from sweepkit.trial.trial import Ending

SPACE = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "weight_decay": {"low": 0.0, "high": 0.1}}

BASELINE = {"learning_rate": 4e-3}


def ran(project: Path, name: str, scores: Mapping[float, float | None], **keys: Any) -> StudyData:
    """Return a study that tried these learning rates: complete ones with a score, pruned ones without."""
    study = check(toy_study(project, **{"name": name, "space": SPACE, "budget": {"trials": len(scores)}, **keys})).study
    identify(study.place, study)
    search = Search(study, open_storage(study.place, study), Proposer(study, {}))
    for rate, score in scores.items():
        search.enqueue({"learning_rate": rate, **({"weight_decay": 0.05} if "weight_decay" in study.space else {})})
        trial = search.ask()
        assert trial is not None
        value = 0.1 if score is None else score
        facts: dict[str, Any] = {"trial": trial.number, "at": 0.0}
        metrics = {"eval_score": value}
        search.report(Evaluated(**facts, number=1, step=1, epoch=1.0, metrics=metrics, values=(value,)))
        ending = Ending.pruned if score is None else Ending.complete
        search.tell(Finished(**facts, ending=ending, values=(value,)))
    return study


def taken(project: Path, start_from: Any, **keys: Any) -> tuple[Earlier, list[str]]:
    """Return what a new study takes, and what is said of it."""
    said: list[str] = []
    keys = {"name": "new", "space": SPACE, "budget": {"trials": 10}, **keys}
    checked = check(toy_study(project, start_from=start_from, **keys))
    return earlier(checked.study, checked.known, said.append), said


def rates(found: Earlier) -> list[float]:
    return [values["learning_rate"] for _, values in found.first]


def test_the_best_configurations_are_taken_in_turns_at_most_a_fifth(project: Path) -> None:
    ran(project, "one", {1e-3: 0.9, 2e-3: 0.8, 5e-3: 0.7, 9e-3: None})
    ran(project, "two", {3e-3: 0.5, 1e-3: 0.4})
    found, said = taken(project, ["one", "two"], budget={"trials": 15})
    assert rates(found) == [1e-3, 3e-3, 2e-3], "two's second is one's first"
    assert said == ["start_from: one, trial 0, two, trial 0 and one, trial 1"]
    assert rates(taken(project, ["one", "two"], budget={"trials": 9})[0]) == [1e-3]
    assert rates(taken(project, "one", budget={"trials": 4})[0]) == []
    mine = {"baseline": {"learning_rate": 1e-3, "weight_decay": 0.05}, "budget": {"trials": 15}}
    assert rates(taken(project, ["one", "two"], **mine)[0]) == [3e-3, 2e-3, 5e-3], "the baseline is trained anyway"
    assert len(found.ranked) == 6
    scores = [round(score, 2) for values, score in found.ranked if values["weight_decay"] == 0.05]
    assert scores == [1.15, 0.32, -0.32, -1.15, 0.67, -0.67], "pruned trials rank last"


def test_confirmed_configurations_come_before_others(project: Path) -> None:
    study = ran(project, "one", {1e-3: 0.9, 2e-3: 0.8, 5e-3: 0.7})
    values = {1: (0.8, 0.81, 0.82), 0: (0.5, 0.51, 0.52)}
    candidates = [Candidate(number=number, values=each, searched=1 - 0.1 * number) for number, each in values.items()]
    write_verdict(study.place, judge(candidates, metric="eval_score", direction="maximize", best=0))
    assert rates(taken(project, "one", budget={"trials": 15})[0]) == [2e-3, 1e-3, 5e-3]


def test_values_outside_of_the_space_are_clipped_or_drawn_and_said(project: Path) -> None:
    ran(project, "one", {1e-3: 0.9, 9e-3: 0.95}, training={"use_cpu": True, "lr_scheduler_type": "cosine"})
    space = {"learning_rate": {"low": 1e-4, "high": 2e-3, "log": True}, "lr_scheduler_type": {"choices": ["linear"]}}
    found, said = taken(project, "one", space=space)
    assert found.first == [("one, trial 1", {"learning_rate": 2e-3}), ("one, trial 0", {"learning_rate": 1e-3})]
    assert said[0] == (
        "start_from: one, trial 1: learning_rate 9e-3 became 2e-3; lr_scheduler_type cosine is not searched and is drawn"
    )
    _, said = taken(project, "one", constraints=["learning_rate < 0.002"])
    assert "trial 1 is left out: no configuration with" in said[0]
    assert said[-1] == "start_from: one, trial 0"


def test_studies_that_do_not_fit_give_nothing(project: Path) -> None:
    adapted = {"training": {"use_cpu": True, "peft.r": 8}}
    ran(project, "names", {1e-3: 0.9}, space={"learning_rate": SPACE["learning_rate"]})
    study = ran(project, "kind", {1e-3: 0.9})
    plain = json.loads(study.place.study_json.read_text())
    plain["study"]["task"] = {"type": "image-classification"}
    study.place.study_json.write_text(json.dumps(plain))
    broken = ran(project, "broken", {1e-3: 0.9})
    broken.place.study_json.write_text("{")
    study = ran(project, "adapted", {1e-3: 0.9})
    plain = json.loads(study.place.study_json.read_text())
    plain["study"]["training"] |= adapted["training"]
    study.place.study_json.write_text(json.dumps(plain))
    space = {"weight_decay": SPACE["weight_decay"]}
    found, said = taken(project, ["names", "kind", "broken", "adapted"], space=space)
    assert found == Earlier(["names", "kind", "broken", "adapted"], [], [])
    assert [line.partition(" is left out: ")[2].partition(" (")[0][:36] for line in said[:-1]] == [
        "it searched none of the names",
        "its task is image-classification, an",
        f"{broken.place.study_json}"[:36],
        "it was trained with LoRA",
    ]
    ran(project, "fits", {2e-3: 0.9})
    assert [origin for origin, _ in taken(project, "auto", budget={"trials": 30})[0].first] == [
        "fits, trial 0",
        "names, trial 0",
    ], "auto: the one that shares most names first"


def test_what_was_taken_is_decided_once(project: Path) -> None:
    study = ran(project, "one", {1e-3: 0.9, 2e-3: 0.8})
    checked = check(
        toy_study(project, name="new", space=SPACE, start_from="one", budget={"trials": 10}, baseline=BASELINE)
    )
    storage = InMemoryStorage()

    def search() -> Search:
        return Search(checked.study, storage, Proposer(checked.study, checked.known))

    first = search().start_from(lambda: earlier(checked.study, checked.known, print))
    assert first is not None and len(first.first) == 2
    shutil.rmtree(study.place.folder)
    for _ in range(3):  # each one of a driver that was killed
        resumed = search()
        assert resumed.start_from(lambda: pytest.fail("looked up again")) is not None
        resumed.ask()
    rows = resumed.trials()
    assert [row.origin for row in rows] == ["baseline", "from one, trial 0", "from one, trial 1"]
    assert [row.params["learning_rate"] for row in rows] == [4e-3, 1e-3, 2e-3]
    late = Search(checked.study, storage, Proposer(checked.study, checked.known))
    late.start_from(lambda: Earlier(["other"]))
    assert late.records.earlier() == first


def test_a_study_with_trials_takes_nothing_any_more(project: Path) -> None:
    study = ran(project, "one", {1e-3: 0.9})
    search = Search(study, open_storage(study.place, study), Proposer(study, {}))
    assert search.start_from(lambda: pytest.fail("looked up")) is None


def test_what_it_was_worth_is_said(project: Path) -> None:
    rows = read(ran(project, "one", {1e-3: 0.9, 2e-3: 0.8, 5e-3: 0.95}))
    rows = [replace(rows[0], origin="from old, trial 3"), replace(rows[1], origin="from old, trial 9"), rows[2]]
    answer = Answer(toy_study(project), rows)
    assert answer.started_from() == (
        "Taken from earlier studies: 0 (old, trial 3) and 1 (old, trial 9); best complete trial among them: "
        "trial 0, 0.9000; among the others: trial 2, 0.9500."
    )
    assert answer.started_from() in answer.record()["says"]


def test_unknown_studies_are_mistakes_of_the_file(project: Path) -> None:
    ran(project, "one", {1e-3: 0.9})
    study = toy_study(project, name="new", start_from=["ome", "new", "one", "auto", "mlflow:any"])
    assert [str(problem) for problem in check_searching(study)] == [
        f"start_from[0]: no study ome ran in {project}; did you mean one?",
        "start_from[1]: is this study itself",
    ]


def test_what_an_hour_is_worth_is_for_search_auto_alone(project: Path) -> None:
    keys = {"name": "new", "budget": {"trials": 10, "worth": "0.002 per hour"}}
    assert [problem.path for problem in check_searching(toy_study(project, **keys))] == ["budget.worth"]
    auto = {**keys, "search": "auto", "sampler": {"seed": 1}}
    assert check_searching(toy_study(project, **auto)) == [] and toy_study(project, **auto).budget.worth == 0.002


@pytest.mark.real  # an MLflow store
def test_runs_of_an_experiment_are_taken_by_the_studys_metric(project: Path) -> None:
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    experiment = client.create_experiment("old")
    for rate, score, status in (("0.001", 0.5, "FINISHED"), ("2e-03", 0.9, "FINISHED"), ("0.003", 0.99, "FAILED")):
        run = client.create_run(experiment, run_name=f"lr {rate}")
        client.log_param(run.info.run_id, "learning_rate", rate)
        client.log_metric(run.info.run_id, "eval_score", score)
        client.set_terminated(run.info.run_id, status)
    found, _ = taken(project, "mlflow:old", tracking={"uri": "sqlite:///mlflow.db"})
    assert [(origin, values) for origin, values in found.first] == [
        ("mlflow:old, run lr 2e-03", {"learning_rate": 2e-3}),
        ("mlflow:old, run lr 0.001", {"learning_rate": 1e-3}),
    ]
    for name, message in (
        ("mlflow:older", "no experiment older"),
        ("mlflow:Default", "no finished run with eval_score"),
    ):
        with pytest.raises(InputError, match=message):
            taken(project, name, tracking={"uri": "sqlite:///mlflow.db"})
    with pytest.raises(InputError, match="is not tracked"):
        taken(project, "mlflow:old")
