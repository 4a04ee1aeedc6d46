"""The report of a study made by hand: it says the answer, draws its figures, and needs no network."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markupsafe import escape

from making import toy_study
from sweepkit import report
from sweepkit.check import convert_numbers, known_values
from sweepkit.check.find import stored_study
from sweepkit.check.study_file import to_yaml
from sweepkit.cli import app
from sweepkit.report.answer import Answer
from sweepkit.report.evidence import Evidence, gather
from sweepkit.report.health import Finding, checks_without_data
from sweepkit.report.mirror import importances
from sweepkit.report.page import html
from sweepkit.report.rows import read
from sweepkit.report.terminal import short_path
from sweepkit.report.verdict import Candidate, judge, write_verdict
from sweepkit.report.watch import State, read_state, write_state
from sweepkit.search.proposer import Proposer
from sweepkit.search.search import Search
from sweepkit.search.storage import open_storage
from sweepkit.study import words
from sweepkit.study.identity import identify
from sweepkit.study.locks import StudyLock
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Finished, Started
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Ending, Trial


def finished_study(project: Path, *, best_at_edge: bool, **keys: Any) -> StudyData:
    """Return a study of twelve trials whose value rises towards one end of the learning rate, or peaks in its middle."""
    study = convert_numbers(
        toy_study(project, **{"budget": {"trials": 12}, "sampler": {"type": "qmc", "seed": 0}, **keys})
    )
    identify(study.place, study)
    search = Search(study, open_storage(study.place, study), Proposer(study, known_values(study)))
    while (asked := search.ask()) is not None:
        log = TrialLog(study.place.trial(asked.number))
        rate = float(asked.params["learning_rate"])
        value = rate if best_at_edge else 1.0 - abs(rate - 1e-3)
        log.append(Started(trial=asked.number, at=time.time()))
        for number in (1, 2):
            said = Evaluated(
                trial=asked.number, at=time.time(), number=number, step=4 * number, epoch=number,
                metrics={"eval_score": value}, values=(value,),
            )  # fmt: skip
            log.append(said)
            search.report(said)
        end = Finished(trial=asked.number, at=time.time(), ending="complete", values=(value,), seconds=1.0)
        log.append(end)
        search.tell(end)
    return study


def test_the_page_holds_the_answer_and_every_figure_without_a_network(project: Path) -> None:
    study = finished_study(project, best_at_edge=False)
    page, answer = report.write(study).read_text(), Answer(study, read(study))
    assert answer.best is not None
    assert f"<title>toy: {words.value(answer.best.value)} eval_score</title>" in page
    assert f'<p class="says">Trial {answer.best.number}, the best of 12 trials.</p>' in page
    assert not re.findall(r"""<(?:script|link|img)[^>]+(?:src|href)=["']?https?://""", page), (
        "the page fetches something"
    )
    drawn = ["history", "importances", "isolation", "slices", "parallel", "curves", "timeline", "ledger"]
    assert re.findall(r'<section id="(\w+)">', page) == drawn
    assert re.findall(r'<div id="plot-(\w+)"', page) == drawn


@pytest.mark.parametrize("best_at_edge", [True, False])
def test_a_best_value_at_the_edge_of_the_space_is_said_and_only_then(project: Path, best_at_edge: bool) -> None:
    study = finished_study(project, best_at_edge=best_at_edge)
    best = Answer(study, read(study)).best
    assert best is not None
    said = Finding(
        check="at_an_edge",
        message=f"The best learning_rate, {words.setting(best.params['learning_rate'])}, lies at the upper edge of its range "
        "(1e-4 to 0.01); the optimum may lie outside.",
        advice="Widen the range and run the same command; the trials so far are kept: learning_rate: {high: 0.1}.",
    )
    assert [finding for finding in report.findings(study) if finding.check == "at_an_edge"] == [said] * best_at_edge
    assert (said.message in report.write(study).read_text()) == best_at_edge


def test_the_command_writes_the_page(project: Path) -> None:
    from typer.testing import CliRunner

    study = finished_study(project, best_at_edge=True)
    result = CliRunner().invoke(app, ["report", "toy", "--output", str(project / "page.html")])
    assert result.exit_code == 0, result.output
    undated = [
        re.sub(r"(Written by sweepkit \S+) on [^.]*", r"\1", path.read_text())
        for path in (project / "page.html", report.write(stored_study(study.place.folder)))
    ]
    assert undated[0] == undated[1]


def test_of_several_goals_each_asks_what_sets_its_best_trials_apart(project: Path) -> None:
    space = {f"task.{name}": {"low": 0.0, "high": 1.0} for name in ("lifts", "spoils")}
    goals = [{"metric": "eval_score", "direction": "maximize"}, {"metric": "eval_cost", "direction": "minimize"}]
    rows = []
    for number in range(60):
        lifts, spoils = number / 59, (23 * number % 60) / 59
        drawn, score = {"task.lifts": lifts, "task.spoils": spoils}, lifts**4 - 10 * (spoils < 0.1)
        facts = {"ending": Ending.complete, "params": drawn, "drawn": drawn, "values": (score, -score)}
        rows.append(Trial(number=number, **facts))
    evidence = Evidence(toy_study(project, space=space, objective={"metrics": goals}), rows)
    assert next(iter(importances(evidence, 0))) == next(iter(importances(evidence, 1))) == "task.lifts"


def test_a_nuisance_is_tuned_away_and_only_what_the_study_asks_about_is_compared(project: Path) -> None:
    from sweepkit.report import figures

    space = {
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True, "role": "nuisance"},
        "per_device_train_batch_size": {"choices": [4, 8]},
    }
    study = finished_study(project, best_at_edge=True, space=space)
    drawn = figures.isolation(study)
    assert [axis.title.text for axis in drawn.select_xaxes()] == ["per_device_train_batch_size"]
    tops = {str(size): 0.0 for size in (4, 8)}
    for row in read(study):
        size = str(row.params["per_device_train_batch_size"])
        tops[size] = max(tops[size], row.value or 0.0)
    (best,) = [trace for trace in drawn.data if trace.marker.size == 8]
    assert dict(zip(best.x, best.y, strict=True)) == tops
    assert "Nuisance hyperparameters are optimized over and not shown." in report.write(study).read_text()


def test_the_page_holds_the_settings_the_choices_every_trial_the_study_file_and_what_was_not_checked(
    project: Path,
) -> None:
    space = {
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "per_device_train_batch_size": {"choices": [4, 8]},
    }
    study = finished_study(project, best_at_edge=False, space=space)
    page, rows = report.write(study).read_text(), read(study)
    best = Answer(study, rows).best
    assert best is not None
    settings = re.findall(
        r'<td class="name">(.*?)</td><td class="strong">(.*?)</td>.*?<td class="quiet">(.*?)</td>', page
    )
    domains = {"learning_rate": "1e-4 to 0.01, log", "per_device_train_batch_size": "4, 8"}
    assert settings == [(name, words.setting(value), domains[name]) for name, value in best.params.items()]
    tried = re.findall(r'<td class="n">(\d+)</td><td><span class="whole"><span class="dot"', page)
    assert tried == [str(row.number) for row in sorted(rows, key=lambda row: -(row.value or 0.0))]
    (choices,) = re.findall(r"<h3>per_device_train_batch_size</h3>\s*<table>(.*?)</table>", page, re.DOTALL)
    assert sorted(re.findall(r"<tr[^>]*><td>(\d)</td>", choices)) == ["4", "8"]
    assert f"<pre>{escape(to_yaml(study))}</pre>" in page
    (lacking,) = re.findall(
        r"12 of 12 trials complete: \d+ of \d+ checks had enough data\. Not checked: (.*?)\. What", page
    )
    assert lacking.split(", ") == checks_without_data(gather(study))


def test_passwords_in_the_urls_of_storage_and_tracking_are_not_in_the_page(project: Path) -> None:
    passwords = "hunter2-is-long", "correct-horse-battery"
    evidence = gather(finished_study(project, best_at_edge=True))
    urls = {
        "storage": f"postgresql://ann:{passwords[0]}@db/optuna",
        "tracking": evidence.study.tracking.model_copy(update={"uri": f"https://ann:{passwords[1]}@mlflow.example"}),
        "question": f"Is {passwords[0]} or {passwords[1]} better?",
    }
    page = html(replace(evidence, study=evidence.study.model_copy(update=urls).at(project)))
    assert "Is *** or *** better?" in page
    assert [password for password in passwords if password in page] == []


def test_the_page_says_where_the_study_stands(project: Path) -> None:
    study = finished_study(project, best_at_edge=False)

    def state() -> str:
        (text,) = re.findall(r"<dt>state</dt><dd>(.*?)</dd>", report.write(study).read_text())
        return str(text)

    assert state() == "done", "all trials of the budget are there, and an earlier version recorded no more"
    with StudyLock(study.place):
        assert state() == "running"
        write_state(study.place, State("running"))
        assert state() == "running"
        write_state(study.place, State("done", "all trials of the budget are done"))
        report.write(study)
        assert "<dd>done: all trials of the budget are done</dd>" in study.place.report.read_text()
    assert state() == "done: all trials of the budget are done"
    write_state(study.place, State("interrupted", "interrupted"))
    assert state() == "interrupted"
    write_state(study.place, State("failed", "no trial completed (budget)"))
    assert state() == "failed: no trial completed (budget)"
    write_state(study.place, State("running"))
    assert state() == "interrupted: the run ended without closing the study", "its driver is gone"
    study.place.outcome_json.unlink()
    more = study.model_copy(update={"budget": study.budget.model_copy(update={"trials": 13})}).at(project)
    assert str(read_state(more, read(more))) == "not running", "what an earlier version left is not known"


def test_at_the_end_of_a_run_the_page_is_written_and_what_goes_wrong_costs_the_page_alone(project: Path) -> None:
    study = finished_study(project, best_at_edge=False)
    page = study.place.report
    assert report.conclude(study, lambda: report.write(study), recorded=True) == f"report: {short_path(page)}"
    page.unlink()
    page.mkdir()
    said = report.conclude(study, lambda: report.write(study), recorded=True)
    assert said.startswith("the report was not written (IsADirectoryError")


def test_the_page_is_small_says_how_to_load_the_model_and_where_mlflow_has_the_study(project: Path) -> None:
    study = finished_study(project, best_at_edge=False)
    best = Answer(study, read(study)).best
    assert best is not None
    assert "load_study" not in report.write(study).read_text(), "there is no checkpoint"
    (study.place.trial(best.number) / "best").mkdir(parents=True)
    study.place.mlflow_json.write_text(
        json.dumps({"study_id": "a", "trials": {}, "experiment_id": "3", "parent_run_id": "beef"})
    )
    page = report.write(study).read_text()
    assert len(page) < 2_300_000
    assert f"load_study(&#39;{study.name}&#39;).best_model()" in page
    assert ("/#/experiments/3/runs/beef" in page) == (study.tracking.uri != "none")
    elsewhere = study.model_copy(update={"tracking": study.tracking.model_copy(update={"uri": "https://ml.example/"})})
    assert 'href="https://ml.example/#/experiments/3/runs/beef"' in html(gather(elsewhere.at(project)))


def test_the_metrics_of_the_test_split_are_on_the_page_and_their_timings_are_not(project: Path) -> None:
    study = finished_study(project, best_at_edge=False)
    metrics = {"test_score": 0.81234, "test_runtime": 1.5, "test_samples_per_second": 200.0}
    (study.place.test_json).write_text(json.dumps({"trial": 0, "at": "2026-01-01", "rows": 8, "metrics": metrics}))
    text = report.write(study).read_text()
    assert "test_score 0.8123" in text and "test_runtime" not in text


@pytest.mark.parametrize(
    ("mean", "says"),
    [
        (0.8, "0.1000 better than the baseline (trial 0: 0.8000)."),
        (0.89, "0.0100 better than the baseline (trial 0: 0.8900), a difference that may be chance."),
    ],
)
def test_a_confirmed_answer_is_held_against_the_baselines_mean(project: Path, mean: float, says: str) -> None:
    study = finished_study(project, best_at_edge=False, baseline={"learning_rate": 1e-4})
    answer = Answer(study, read(study))
    assert answer.best is not None and answer.baseline is not None
    best, baseline = answer.best.number, answer.baseline
    able = [
        Candidate(number=number, values=(m - 0.01, m, m + 0.01), baseline=number == baseline.number, searched=0.9)
        for number, m in ((best, 0.9), (baseline.number, mean))
    ]
    found = judge(able, metric="eval_score", direction="maximize", best=best)
    write_verdict(study.place, found)
    page = report.write(study).read_text()
    assert says in page
    (section,) = re.findall(r'<section id="seeds">.*?</section>', page, re.DOTALL)
    rows = re.findall(r'<tr(?: class="(best)")?><td class="n">(\d+)[^<]*</td><td class="n">([^<]*)</td>', section)
    assert rows == [("best", str(best), "0.9000"), ("", str(baseline.number), words.value(mean))]
    assert ("not distinguishable" in page) == (mean == 0.89)
    assert "confirmed" not in page.partition("<script>")[0] + section
