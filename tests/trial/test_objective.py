"""One rule for the value of a trial: what ranks trials also prunes them and decides which checkpoint is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from making import toy_study
from sweepkit.check import check
from sweepkit.driver.run import Replacements, run_checked
from sweepkit.study.study import StudyData
from sweepkit.tasks.load import task_class
from sweepkit.trial.events import Checkpointed
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Trial

pytestmark = pytest.mark.real


CURVES = {
    "peak": [0.5, 0.9, 0.3, 0.2, 0.1],
    "steady": [0.5, 0.6, 0.6, 0.6, 0.7],
    "late": [0.5, 0.2, 0.4, 0.4, 0.8],
}
"""``eval_score`` of five epochs of four steps; the first one's second epoch is its best and its last is its worst."""


def study_of(project: Path, value: str, **keys: Any) -> StudyData:
    """Return a study that tries each curve once, in their order."""
    study = toy_study(
        project,
        objective={"metric": "eval_score", "direction": "maximize", "value": value},
        space={"run": {"choices": {name: {"task.curve": curve} for name, curve in CURVES.items()}}},
        enqueue=[{"run": name} for name in CURVES],
        training={"num_train_epochs": 5},
        checkpoints={"keep": 1},
        budget={"trials": len(CURVES)},
        **keys,
    )
    return check(study).study


def ran(study: StudyData) -> list[Trial]:
    """Run the study in this process, one trial after the other."""
    kind = task_class(study.task, study.home)
    return run_checked(check(study), instead=Replacements(task=kind)).rows


def name(row: Trial) -> str:
    return list(CURVES)[row.number]


@pytest.mark.parametrize(
    ("value", "ranking", "step"),
    [
        ("best", {"peak": 0.9, "late": 0.8, "steady": 0.7}, 8),
        ("last", {"late": 0.8, "steady": 0.7, "peak": 0.1}, 20),
        ("mean(2)", {"steady": 0.65, "late": 0.6, "peak": 0.15}, 20),
    ],
)
def test_trials_rank_by_the_rule_and_the_winners_checkpoint_is_the_one_it_values(
    project: Path, value: str, ranking: dict[str, float], step: int
) -> None:
    study = study_of(project, value)
    rows = sorted(ran(study), key=lambda row: -row.values[0])
    assert {name(row): row.values[0] for row in rows} == pytest.approx(ranking)
    assert [name(row) for row in rows] == list(ranking)
    assert [name(row) for row in rows if row.checkpoint is not None] == [name(rows[0])]
    events = TrialLog(study.place.trial(rows[0].number)).refresh()
    assert [e.step for e in events if isinstance(e, Checkpointed) and e.role == "best"][-1] == step


@pytest.mark.parametrize(
    ("value", "pruned"), [("best", {}), ("last", {"peak": 4, "late": 2}), ("mean(2)", {"peak": 4})]
)
def test_trials_are_pruned_by_the_rules_value_so_far(project: Path, value: str, pruned: dict[str, int]) -> None:
    rows = ran(study_of(project, value, pruner={"type": "threshold", "lower": 0.27}))
    assert {name(row): len(row.intermediate) for row in rows if row.ending == "pruned"} == pruned
    assert {name(row) for row in rows if row.ending == "complete"} == CURVES.keys() - pruned.keys()
