"""The live picture of a notebook, without a browser: what is handed to the frontend while a study runs."""

from __future__ import annotations

import io
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import IPython.display
import pytest
from rich.console import Console

from sweepkit import Study
from sweepkit.api.picture import LivePicture
from sweepkit.report.progress import picture
from sweepkit.report.watch import Outcome, confirming
from sweepkit.trial.events import Evaluated, Started
from sweepkit.trial.trial import Ending, Trial


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Collect what is displayed, in order."""
    contents: list[dict[str, str]] = []

    def display(content: dict[str, str], **options: Any) -> None:
        contents.append(content)

    monkeypatch.setattr(IPython.display, "display", display)
    return contents


def study_of(project: Path) -> Study:
    return Study(
        name="toy",
        task={"path": "task.py:Toy"},
        objective={"metric": "eval_f1", "direction": "maximize"},
        space={"learning_rate": {"low": 1e-6, "high": 1e-1}},
        budget={"trials": 6},
    )


def ended(number: int, value: float, **facts: Any) -> Trial:
    params = {"learning_rate": (number + 1) * 1e-3}
    return Trial(number=number, ending=Ending.complete, values=(value,), params=params, seconds=1.0, **facts)


def evaluated(trial: int, number: int, value: float) -> Evaluated:
    return Evaluated(trial=trial, at=0, number=number, step=number, epoch=number, metrics={}, values=(value,))


def polylines(html: str) -> dict[str, str]:
    """Return the stroke width of each trial's curve."""
    found = re.findall(r"<polyline .*?stroke-width=([\d.]+).*?<title>trial (\d+)</title>", html)
    return {number: width for width, number in found}


def test_the_last_picture_has_the_best_the_curves_and_the_outcome(project: Path, shown: list[dict[str, str]]) -> None:
    rows = [ended(0, 0.5, origin="baseline"), ended(1, 0.75)]
    with LivePicture() as view:
        view.on_open(study_of(project), [])
        for row in rows:
            view.on_event(Started(trial=row.number, at=0))
            view.on_event(evaluated(row.number, 1, 0.1))
            view.on_event(evaluated(row.number, 2, row.values[0]))
            view.on_trial_end(row)
        view.on_close(Outcome("done", rows, rows[1], rows[0], "all trials of the budget are done", 61.0))
    html, text = shown[-1]["text/html"], shown[-1]["text/plain"]
    assert text == "toy  done  2/6  best 0.7500 (trial 1)"
    assert "<b>done</b>: all trials of the budget are done" in html
    assert "2 of 6 trials · 2 complete · 1 min 01 s" in html
    cells = ["1", "0.7500", "+0.2500", "1.0 s", "0", "0.5000", "baseline", "1.0 s"]
    assert re.findall(r"<td class='n'>(.*?)</td>", html) == cells
    assert "<tr class=first><td class='n'>1</td>" in html
    assert polylines(html) == {"0": "1.2", "1": "2.5"}
    assert "training now" not in html


def test_a_running_trial_is_shown_with_its_curve_and_its_share(project: Path, shown: list[dict[str, str]]) -> None:
    with LivePicture() as view:
        view.on_open(study_of(project), [])
        view.on_event(Started(trial=0, at=0))
        view.on_event(evaluated(0, 1, 0.4))
        view.show()
        html = shown[-1]["text/html"]
    assert "<h4>training now</h4>" in html
    assert re.findall(r"width:([\d.]+)%", html) == ["5.6", "33.3"]  # of six trials, of three epochs
    assert polylines(html) == {"0": "1.5"}


def test_the_confirmation_has_its_bar_its_count_and_the_time_left_as_on_a_terminal(
    project: Path, shown: list[dict[str, str]]
) -> None:
    study = study_of(project)
    waiting = [Trial(number=number, ending=Ending.waiting, confirm_of=5 - number % 2) for number in range(4)]
    runs = confirming(study, replace(study.place, name="toy/confirm"), 4, waiting)
    with LivePicture() as view:
        view.on_open(study, [ended(number, 0.5) for number in range(6)])
        runs.began = time.time() - 30
        runs.seconds_left()  # begins to look
        runs.add(Started(trial=0, at=0))
        runs.end(ended(0, 0.5))
        runs.add(Started(trial=1, at=0))
        view.on_confirmation(runs)
        view.show()
        html = shown[-1]["text/html"]
        assert shown[-1]["text/plain"] == "toy  running  6/6  1/4 confirmed  best 0.5000 (trial 0)"
        assert re.findall(r"width:([\d.]+)%", html) == ["100.0", "25.0", "0.0"]
        assert view._board is not None
        with (terminal := Console(file=io.StringIO())).capture() as printed:
            terminal.print(picture(view._board))
        said = printed.get()
        for fact in ("6/6", "1/4 confirmed", "30 s, about 1 s left", "1 complete, 1 running"):
            assert fact in html and fact in said
        assert re.findall(r"<td class='n'>(.)</td><td class=''></td>", html) == ["4"], "the trial that run 1 repeats"
        assert "<h4>best in the search</h4>" in html
        view.on_close(Outcome("done", [ended(0, 0.5)], None, None, "all trials of the budget are done", 61.0))
    assert (
        "</b>: all trials of the budget are done<span class=soft> · 6 of 6 trials · 1/4 confirmed · 6 complete · 1 min 01 s"
        in (shown[-1]["text/html"])
    )
    assert "<div>Trial 0, the best of 1 trial.</div>" in shown[-1]["text/html"]


@pytest.mark.parametrize(("resumed", "points"), [(0, 1), (2, 3)])
def test_an_attempt_from_the_start_begins_its_curve_anew_and_a_resumed_one_continues_it(
    project: Path, shown: list[dict[str, str]], resumed: int, points: int
) -> None:
    with LivePicture() as view:
        view.on_open(study_of(project), [])
        view.on_event(Started(trial=0, at=0))
        view.on_event(evaluated(0, 1, 0.4))
        view.on_event(evaluated(0, 2, 0.5))
        view.on_event(Started(trial=0, at=1, attempt=2, resumed=resumed))
        view.on_event(evaluated(0, 3 if resumed else 1, 0.6))
    [line] = re.findall(r"<polyline points='(.*?)'", shown[-1]["text/html"])
    assert len(line.split()) == points


def test_what_a_trial_says_is_escaped_and_only_the_last_failures_are_shown(
    project: Path, shown: list[dict[str, str]]
) -> None:
    with LivePicture() as view:
        view.on_open(study_of(project), [])
        for number in range(5):
            view.on_trial_end(Trial(number=number, ending=Ending.failed, cause=f"ValueError: {number} <b>\nmore"))
    html = shown[-1]["text/html"]
    assert re.findall(r"<div class=wrong>(.*?)</div>", html) == [
        f"trial {number} failed: ValueError: {number} &lt;b&gt;" for number in (2, 3, 4)
    ]
    assert "and 2 more that went wrong" in html


def test_an_error_of_the_run_is_shown_where_the_picture_was(project: Path, shown: list[dict[str, str]]) -> None:
    view = LivePicture()
    view.__enter__()
    view.on_note("importing torch")
    error = RuntimeError("no <disk>")
    view.__exit__(RuntimeError, error, None)
    assert "<div class=wrong>RuntimeError: no &lt;disk&gt;</div>" in shown[-1]["text/html"]
    assert "importing torch" in shown[-1]["text/html"]


def test_the_picture_needs_no_network(project: Path, shown: list[dict[str, str]]) -> None:
    with LivePicture() as view:
        view.on_open(study_of(project), [ended(0, 0.5)])
    assert re.search(r"https?://|<script|<link|@import|url\(", shown[-1]["text/html"]) is None
