"""What every tracker promises, held against each one in the table and against one made for this test."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import written_trials as trials
from sweepkit.cli.plan import plan
from sweepkit.report import terminal
from sweepkit.study.errors import InputError, StudyNotFound
from sweepkit.study.study import StudyData
from sweepkit.trackers import TRACKERS, tracker_of

pytestmark = pytest.mark.real

ADDRESSES = {"none": "none", "sqlite": "sqlite:///mlflow.db", "jsonl": "jsonl:record.jsonl"}
"""Scheme → an address of it: each line of the table, MLflow's, and the one of this test."""
NEW = "lines_tracker:Lines"


@pytest.fixture(params=sorted({*TRACKERS, *ADDRESSES}))
def study(request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch) -> StudyData:
    """Return a study for each tracker."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setitem(TRACKERS, "jsonl", NEW)
    return trials.toy_study(home, tracking={"uri": ADDRESSES[request.param]})


def test_what_is_delivered_once_is_known_to_every_tracker_after(study: StudyData) -> None:
    rows = [trials.whole(study, number) for number in (0, 1)]
    tracker = tracker_of(study, lambda: rows)
    recorded = bool(tracker.name)
    assert (tracker.behind(), tracker.runs()) == (2 if recorded else 0, {})
    for _ in range(2):
        tracker.open()
        tracker.sync()
        assert tracker.behind() == 0
    runs = dict(tracker_of(study).runs())
    assert (set(runs), len(set(runs.values()))) == (({0, 1}, 2) if recorded else (set(), 0))
    rows.append(trials.whole(study, 2))
    assert tracker.behind() == (1 if recorded else 0)
    tracker.sync()
    again = dict(tracker_of(study).runs())
    assert {number: again[number] for number in runs} == runs
    assert set(again) == ({0, 1, 2} if recorded else set())


def test_every_method_may_be_called_again(study: StudyData) -> None:
    rows = [trials.whole(study, 0)]
    tracker = tracker_of(study, lambda: rows)
    for _ in range(2):
        tracker.prepare()
        tracker.open()
        tracker.sync()
        tracker.keep(0)
        tracker.drop(0)
        tracker.close({"best": 0, "value": 0.5, "baseline": 0.4})
    assert tracker_of(study).registered() <= {0}


def test_a_file_is_attached_to_a_record_only_where_there_is_one(study: StudyData, project: Path) -> None:
    file = project / "report.html"
    file.write_text("a page")
    assert tracker_of(study).attach(file) is False
    tracker = tracker_of(study, lambda: [trials.whole(study, 0)])
    tracker.open()
    assert tracker_of(study).attach(file) is bool(tracker.name)


def test_a_plan_and_a_summary_name_the_tracker_and_no_other(study: StudyData) -> None:
    console = Console(width=200, file=StringIO())
    console.print(plan(study, "study.yaml"), terminal.commands(study, []))
    printed, name = console.file.getvalue(), tracker_of(study).name
    assert (f"{name} {study.tracking.uri}" in printed and f"parameters in {name}" in printed) == bool(name)
    assert "MLflow" in printed if name == "MLflow" else "MLflow" not in printed


def test_a_link_needs_a_record(study: StudyData) -> None:
    tracker = tracker_of(study)
    with pytest.raises(StudyNotFound if tracker.name else InputError):
        tracker.link("http://127.0.0.1:1")
    if tracker.name:
        tracker.open()
        assert "://" in tracker.link("http://127.0.0.1:1")


def test_reading_what_was_delivered_writes_nothing_and_imports_no_library(study: StudyData, project: Path) -> None:
    trials.whole(study, 0)
    before = sorted(project.rglob("*"))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            _READ,
            study.tracking.uri,
            *map(str, (Path(__file__).parent, Path(__file__).parents[1])),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("loaded: []\n", "")
    assert sorted(project.rglob("*")) == before


_READ = f"""
import sys
sys.path += sys.argv[2:]
from pathlib import Path
import written_trials as trials
from sweepkit.trackers import TRACKERS, tracker_of
TRACKERS["jsonl"] = {NEW!r}
tracker = tracker_of(trials.toy_study(Path.cwd(), tracking={{"uri": sys.argv[1]}}))
tracker.runs(), tracker.registered(), tracker.behind()
print("loaded:", sorted({{"mlflow", "torch", "transformers", "optuna", "ray"}} & set(sys.modules)))
"""


@pytest.mark.parametrize("uri", ["htp://somewhere", "sqlite://", "sqlite:///:memory:"])
def test_an_impossible_address_is_refused_before_anything_is_opened_and_disturbs_no_reader(
    project: Path, uri: str
) -> None:
    tracker = tracker_of(trials.toy_study(project, tracking={"uri": uri}))
    with pytest.raises(InputError, match=r"tracking\.uri"):
        tracker.prepare()
    assert (tracker.runs(), tracker.registered(), tracker.behind()) == ({}, frozenset(), 0)
