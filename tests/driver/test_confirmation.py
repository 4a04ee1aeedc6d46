"""Studies of a task whose truth and noise are known: search, new seeds and verdict, two hundred times over."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from optuna.storages import InMemoryStorage

from making import SCORE, toy_study
from sweepkit.check import check, known_values
from sweepkit.driver.confirm import Confirmation
from sweepkit.driver.run import Replacements, run_checked
from sweepkit.report.verdict import Verdict
from sweepkit.search.proposer import Proposer
from sweepkit.search.search import Search
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Finished
from toy_tasks import Noisy, noise, score

pytestmark = pytest.mark.real


STUDIES = 200
NOISE = 0.02
X = (0.0, 0.4, 0.6)
"""Option of the task: the baseline, far behind, and two that are equally good; trials 0, 1 and 2."""
TRUTH = {number: score(1e-3, x) for number, x in enumerate(X)}


def study_of(project: Path, seed: int) -> StudyData:
    return toy_study(
        project,
        task={"path": toy_study(project).task.path.replace("Quadratic", "Noisy"), "noise": NOISE},
        training={"use_cpu": True, "learning_rate": 1e-3, "max_steps": 1, "seed": seed},
        objective={**SCORE, "value": "last"},
        space={"task.x": {"choices": list(X)}},
        baseline={"task.x": X[0]},
        enqueue=[{"task.x": x} for x in X[1:]],
        budget={"trials": len(X)},
        confirm={"top": 2, "seeds": 5},
    )


def train(study: StudyData, search: Search) -> None:
    """End every trial with the value its seed gives it, as the task's Trainer does."""
    while (asked := search.ask()) is not None:
        seed = study.seed if asked.seed is None else asked.seed
        value = score(1e-3, asked.params["task.x"]) + noise(seed, NOISE)
        common = {"trial": asked.number, "at": 0.0, "step": 1, "values": (value,)}
        search.report(Evaluated(number=1, epoch=1.0, metrics={"eval_score": value}, **common))
        search.tell(Finished(ending="complete", **common))


def confirmed(project: Path, number: int) -> Verdict:
    """Return the verdict of one study, which has seeds of its own."""
    study, storage = study_of(project, 10_000_000 * (number + 1)), InMemoryStorage()
    search = Search(study, storage, Proposer(study, known_values(study)))
    train(study, search)
    confirmation = Confirmation(study, search, storage, Proposer(study, known_values(study)))
    assert confirmation.enqueue() == 15
    train(study, confirmation.search)
    return confirmation.verdict()


def test_a_real_trainer_reports_the_truth_and_the_noise_of_its_seed(project: Path) -> None:
    study = study_of(project, 7).model_copy(update={"confirm": None}).at(project)
    rows = run_checked(check(study), instead=Replacements(task=Noisy)).rows
    assert [row.value for row in rows] == pytest.approx([TRUTH[n] + noise(7, NOISE) for n in range(3)])


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> list[Verdict]:
    home = tmp_path_factory.mktemp("confirmed")
    (home / "pyproject.toml").touch()
    return [confirmed(home, number) for number in range(STUDIES)]


def test_intervals_of_two_hundred_studies_cover_the_truth_as_often_as_they_say(verdicts: list[Verdict]) -> None:
    covered = [e.low <= TRUTH[e.number] <= e.high for verdict in verdicts for e in verdict.estimates]
    assert len(covered) == 3 * STUDIES
    # 600 intervals at 95 %: the rate's own standard error is 0.9 %, and this allows three of them.
    assert 0.923 <= sum(covered) / len(covered) <= 0.977


def test_equal_trials_are_called_not_distinguishable_and_the_baseline_is_not(verdicts: list[Verdict]) -> None:
    words = [" ".join(verdict.sentences()) for verdict in verdicts]
    said = [bool(re.search(r"Trial [12] is not distinguishable from trial [12] \(p = ", text)) for text in words]
    # At most 5 % wrongly told apart; the rate's own standard error is 1.5 %.
    assert sum(said) >= (0.95 - 3 * 0.0154) * STUDIES
    behind = ["not distinguishable from the baseline" in text for text in words]
    assert sum(behind) <= 0.01 * STUDIES
    assert {verdict.chosen for verdict in verdicts} == {1, 2}
