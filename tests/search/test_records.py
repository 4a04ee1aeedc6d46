"""What is recorded of a trial, and what is read back: also from studies that an earlier version ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from making import toy_study
from sweepkit.search.proposer import Proposer
from sweepkit.search.read_only import ReadOnlyStorage
from sweepkit.search.records import blank, row_of
from sweepkit.search.samplers import Quasi, quiet_optuna
from sweepkit.search.search import Search
from sweepkit.study.configurations import Configuration
from sweepkit.study.errors import InputError
from sweepkit.trial.events import Evaluated, Finished
from sweepkit.trial.trial import Ending, Trial


def search_of(project: Path, **keys: Any) -> Search:
    study = toy_study(project, **keys)
    return Search(study, optuna.storages.InMemoryStorage(), Proposer(study, {}))


def end(search: Search, ending: str, *values: float) -> Trial:
    """Run the next trial to this ending; return it."""
    asked = search.ask()
    assert asked is not None
    search.tell(Finished(trial=asked.number, at=0, ending=ending, values=values))
    return asked


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"origin": "retry of 3"}, ("retry of 3", 3, None)),
        ({"origin": "confirm of 12"}, ("confirm of 12", None, 12)),
        ({"retry_of": 0}, ("retry of 0", 0, None)),
        ({"confirm_of": 0}, ("confirm of 0", None, 0)),
        ({"origin": "baseline"}, ("baseline", None, None)),
        ({}, ("sampled", None, None)),
    ],
    ids=str,
)
def test_a_retry_is_read_from_its_number_or_from_the_text_of_earlier_versions(
    attributes: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    row = row_of(create_trial(state=TrialState.WAITING, user_attrs=attributes))
    assert (row.origin, row.retry_of, row.confirm_of) == expected


def test_a_retry_has_the_same_configuration_and_the_failed_trial_no_longer_counts(project: Path) -> None:
    search = search_of(project, budget={"trials": 1})
    failed = end(search, "failed")
    assert search.ask() is None, "the budget is spent"
    (number,) = search.retry([failed.number])
    again = end(search, "complete", 0.5)
    assert (again.number, again.params) == (number, failed.params)
    assert search.row(number).retry_of == failed.number
    assert search.ask() is None


def test_only_failed_trials_are_retried_and_only_once(project: Path) -> None:
    search = search_of(project)
    end(search, "complete", 0.5)
    end(search, "failed")
    with pytest.raises(InputError, match="trial 0 is complete; only failed trials can be retried"):
        search.retry([0])
    search.retry([1])
    with pytest.raises(InputError, match="trial 1 was already retried"):
        search.retry([1])


@pytest.mark.parametrize(("direction", "worst"), [("maximize", 0.2), ("minimize", 0.9)])
def test_a_diverged_trial_gets_the_worst_value_so_far_and_breaks_the_constraint(
    project: Path, direction: str, worst: float
) -> None:
    search = search_of(project, objective={"metric": "eval_score", "direction": direction})
    end(search, "complete", 0.2)
    end(search, "complete", 0.9)
    end(search, "diverged")
    stored = search.records.get(2)
    assert (stored.state, stored.values) == (TrialState.COMPLETE, [worst])
    assert [search.records.get(number).constraints["fits"] for number in range(3)] == [-1.0, -1.0, 1.0]
    assert (search.row(2).ending, search.row(2).values) == (Ending.diverged, ())


def test_a_complete_trial_without_a_finite_value_is_diverged(project: Path) -> None:
    search = search_of(project)
    end(search, "complete", float("nan"))
    assert (search.row(0).ending, search.row(0).cause) == (Ending.diverged, "the objective is [nan]")


def test_an_attempt_that_is_repeated_replaces_the_evaluations_it_had_reached(project: Path) -> None:
    search = search_of(project)
    asked = search.ask()
    assert asked is not None
    for number, value in ((1, 0.1), (2, 0.9), (1, 0.2), (2, 0.3)):
        event = Evaluated(trial=0, at=0, number=number, step=number, epoch=1, metrics={}, values=(value,))
        search.report(event)
    assert search.value_so_far(event) == (0.3,)


def test_a_pruner_asked_again_about_the_same_evaluation_gives_the_same_answer(project: Path) -> None:
    search = search_of(project, pruner={"type": "asha", "min_resource": 1, "reduction_factor": 2})
    answers = []
    for value in (0.9, 0.8, 0.1):
        asked = search.ask()
        assert asked is not None
        event = Evaluated(trial=asked.number, at=0, number=1, step=1, epoch=1, metrics={}, values=(value,))
        answers.append((search.report(event), search.report(event)))
    assert answers[0] == ("continue", "continue") and answers[2] == ("prune", "prune")


def pruned(search: Search, *curve: float, length: int = 3) -> int | None:
    """Run the next trial, of so many evaluations at most; return the evaluation at which it was pruned."""
    asked = search.ask()
    assert asked is not None
    for number, value in enumerate(curve, start=1):
        final = number == length
        event = Evaluated(
            trial=asked.number, at=0, number=number, step=number, epoch=1, metrics={}, values=(value,), final=final
        )
        if search.report(event) == "prune":
            assert search.report(event) == "prune", "the same answer when asked again"
            search.tell(Finished(trial=asked.number, at=0, ending="pruned", values=(value,)))
            return number
    search.tell(Finished(trial=asked.number, at=0, ending="complete", values=(curve[-1],)))
    return None


ASHA = {"type": "asha", "min_resource": 1, "reduction_factor": 2}
PRUNERS = [ASHA, {"type": "threshold", "lower": 0.5}, {"type": "median", "n_startup_trials": 1, "n_warmup_steps": 0}]


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner["type"])
def test_the_baseline_is_never_pruned_nor_is_its_retry(project: Path, pruner: dict[str, Any]) -> None:
    search = search_of(
        project,
        pruner=pruner,
        baseline={"learning_rate": 1e-3},
        enqueue=[{"learning_rate": 2e-3}],
        budget={"trials": 9},
    )
    first = end(search, "failed")
    assert first.origin == "baseline"
    assert pruned(search, 0.9, 0.9, 0.9) is None, "the enqueued one, with the baseline to come"
    search.retry([first.number])
    assert pruned(search, 0.1, 0.1, 0.1) is None, "the baseline's retry is the baseline"
    assert pruned(search, 0.1, 0.1, 0.1) == 1, "others are pruned at the same values"


def test_the_pruner_compares_others_with_the_baseline(project: Path) -> None:
    search = search_of(project, pruner=ASHA, baseline={"learning_rate": 1e-3})
    assert pruned(search, 0.9, 0.9, 0.9) is None
    assert pruned(search, 0.8, 0.8, 0.8) == 1


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner["type"])
@pytest.mark.parametrize("length", [1, 3])
def test_no_trial_is_pruned_at_its_final_evaluation(project: Path, pruner: dict[str, Any], length: int) -> None:
    search = search_of(project, pruner=pruner)
    assert pruned(search, *[0.9] * length, length=length) is None
    assert pruned(search, *[0.95] * (length - 1), 0.1, length=length) is None
    longer = pruned(search, *[0.95] * (length - 1), 0.1, length=length + 1)
    assert longer in (length, None) and (longer == length or length == 3), "not final, so it may be pruned there"


def test_samplers_cannot_write_to_the_study_they_read(project: Path) -> None:
    search = search_of(project)
    end(search, "complete", 0.5)
    storage = search.records.storage
    view = ReadOnlyStorage(storage, blank(1, -1), trials=search.records.all, judged=lambda trial: trial)
    study = search.records.study(view)
    assert [trial.number for trial in study.get_trials()] == [0, 1]
    study.sampler = optuna.samplers.TPESampler()
    for write in (study.ask, lambda: study.set_user_attr("a", 1), lambda: view.set_trial_system_attr(0, "a", 1)):
        with pytest.raises(NotImplementedError, match="may only read"):
            write()
    view.set_trial_system_attr(-1, "a", 1)
    assert view.written == {"a": 1} and [trial.number for trial in search.trials()] == [0]


class Recording(Proposer):
    """Records which trials the sampler saw."""

    seen: list[int]

    def sample(self, sampler: Any, study: optuna.Study, trial: Any, fixed: Any) -> Configuration | None:
        """Propose as always."""
        self.seen = [each.number for each in study.get_trials(deepcopy=False)]
        return super().sample(sampler, study, trial, fixed)


@pytest.mark.parametrize(("default", "seen"), [("adamw_torch_fused", [1]), ("sgd", [0, 1])])
def test_samplers_do_not_see_a_baseline_outside_of_the_space(project: Path, default: str, seen: list[int]) -> None:
    study = toy_study(project, space={"optim": {"choices": ["adamw_torch", "sgd"]}}, baseline={})
    proposer = Recording(study, {"optim": default})
    search = Search(study, optuna.storages.InMemoryStorage(), proposer)
    assert end(search, "complete", 0.5).params == {"optim": default}
    search.ask()
    assert proposer.seen == seen


def test_a_trial_whose_driver_died_after_recording_its_ending_is_closed_and_not_run_again(project: Path) -> None:
    study, storage = toy_study(project), optuna.storages.InMemoryStorage()
    search = Search(study, storage, Proposer(study, {}))
    search.ask()
    search.records.note(search.records.get(0), values=[0.5], ending="complete")
    resumed = Search(study, storage, Proposer(study, {}))
    assert resumed.take_over() == []
    assert (resumed.records.get(0).state, resumed.records.get(0).values) == (TrialState.COMPLETE, [0.5])


def test_a_resumable_sequence_has_every_point_of_optunas() -> None:
    space: dict[str, Any] = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}
    with quiet_optuna():
        sampler = optuna.samplers.QMCSampler(qmc_type="halton", seed=1, warn_independent_sampling=False)
        study = optuna.create_study(sampler=sampler)
        points = [sampler.sample_relative(study, create_trial(state=TrialState.RUNNING), space) for _ in range(4)]
        for point, expected in enumerate(points):
            mine = Quasi(optuna.samplers.QMCSampler(qmc_type="halton", seed=1), point=point)
            assert mine.sample_relative(study, create_trial(state=TrialState.RUNNING), space) == expected
            assert mine.point == point + 1
