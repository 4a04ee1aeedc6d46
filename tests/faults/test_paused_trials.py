"""Trials that pause and go on, really trained: to the same values as without a pause, by ranks, and by two drivers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from making import sweep, toy_study
from postgres import postgres
from sweepkit.check import Checked, convert_numbers, known_values
from sweepkit.check.study_file import to_yaml
from sweepkit.driver.run import Outcome, Replacements, run, run_checked
from sweepkit.report.rows import read
from sweepkit.report.watch import Watcher
from sweepkit.study.paths import Place
from sweepkit.study.study import StudyData
from sweepkit.tasks.load import task_class
from sweepkit.trial.events import Started
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Ending, Trial
from toys import TOY_TASKS

pytestmark = pytest.mark.real

HALVING = {"type": "asha", "promote": True, "reduction_factor": 2}


class Damaging(Watcher):
    """Damages a trial's files when it pauses, and keeps what is said of the study."""

    def __init__(self, place: Place, damage: Callable[[Path], None]) -> None:
        self._place = place
        self._damage = damage
        self.paused: list[int] = []
        self.said: list[str] = []

    def on_trial_end(self, row: Trial) -> None:
        if row.ending is Ending.paused:
            self.paused.append(row.number)
            self._damage(self._place.trial(row.number))

    def on_note(self, text: str) -> None:
        self.said.append(text)


def study_of(project: Path, name: str, **keys: Any) -> StudyData:
    """Return a study of two trials whose values follow from their weights, the first trial the better one."""
    return convert_numbers(
        toy_study(
            project,
            name=name,
            task={"path": f"{TOY_TASKS}:Falling"},
            training={"num_train_epochs": 4, "optim": "adamw_torch", "model.dropout": 0.2},
            space={"learning_rate": {"low": 0.1, "high": 100.0, "log": True}},
            enqueue=[{"learning_rate": 50.0}, {"learning_rate": 1.0}],
            budget={"trials": 2},
            **keys,
        )
    )


def ran(study: StudyData, watch: Watcher) -> Outcome:
    here = Replacements(task=task_class(study.task, study.home))
    return run_checked(Checked(study, known_values(study)), watch=watch, instead=here)


def curve(study: StudyData, number: int) -> list[tuple[int, tuple[float, ...]]]:
    return [(event.step, event.values) for event in TrialLog(study.place.trial(number)).evaluations]


def flip(folder: Path) -> None:
    """Change a bit in the middle of the optimizer that the trial would go on with."""
    [file] = folder.glob("last/*/optimizer.pt")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_trial_that_paused_has_the_values_of_one_that_did_not(project: Path) -> None:
    straight = study_of(project, "straight")
    ran(straight, Watcher())
    for name, damage, resumed, said in (
        ("whole", lambda folder: None, 4, ""),
        ("damaged", flip, 0, "not as it was written"),
    ):
        study = study_of(project, name, pruner=HALVING)
        watch = Damaging(study.place, damage)
        [first, second] = ran(study, watch).rows
        assert (watch.paused, first.ending, second.ending) == ([0, 1], Ending.complete, Ending.pruned)
        assert curve(study, 0) == curve(straight, 0), name
        starts = [e for e in TrialLog(study.place.trial(0)).refresh() if isinstance(e, Started)]
        assert starts[-1].resumed == resumed
        assert not said or any(said in note for note in watch.said)
        assert first.values == max(values for _, values in curve(straight, 0))


@pytest.mark.slow
def test_a_gang_pauses_and_goes_on_as_one(project: Path) -> None:
    study = study_of(project, "gang", pruner=HALVING, backend={"ranks_per_trial": 2, "parallel": 1})
    rows = run(study).rows
    assert [str(row.ending) for row in rows] == ["complete", "pruned"] and rows[0].attempts == 2
    assert [step for step, _ in curve(study, 0)] == [2, 4, 6, 8]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_drivers_pause_trials_and_each_goes_on_once(project: Path, tmp_path: Path) -> None:
    with postgres() as url:
        study = toy_study(
            project,
            storage=url,
            task={"step_seconds": 0.05},
            training={"num_train_epochs": 9},
            pruner={**HALVING, "reduction_factor": 3},
            budget={"trials": 20},
            backend={"parallel": 1},
        )
        (project / "study.yaml").write_text(to_yaml(study))
        both = [sweep("run", str(project / "study.yaml"), cwd=tmp_path, env=dict(os.environ)) for _ in range(2)]
        said = [process.communicate(timeout=600)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        rows = read(study)
    assert [row.number for row in rows] == list(range(20))
    assert {str(row.ending) for row in rows} == {"complete", "pruned"}
    for row in rows:
        steps = [event.number for event in TrialLog(study.place.trial(row.number)).evaluations]
        assert steps == list(range(1, len(steps) + 1)) == list(row.intermediate), "each evaluation once"
        assert (row.ending is Ending.complete) == (len(steps) == 9)
        starts = [e.resumed for e in TrialLog(study.place.trial(row.number)).refresh() if isinstance(e, Started)]
        assert starts == sorted(set(starts)), "no part was trained twice"
    assert any(row.attempts > 1 for row in rows)
