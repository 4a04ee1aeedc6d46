"""The trial that ``hp_space`` and ``model_init`` get, beside Optuna's own loop over the same values; nothing is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler

from sweepkit import InputError
from sweepkit.search.by_run import DefinedByRun
from sweepkit.search.search import Search
from sweepkit.search.storage import open_storage
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Finished
from sweepkit.trial.trial import Ending, Trial

Space = Callable[[Any], Mapping[str, Any]]


def searched(
    project: Path, space: Space, trials: int, sampler: BaseSampler | None = None, study_name: str = "toy", **given: Any
) -> list[Trial]:
    """Return the trials of a search that ends each with :func:`value_of` what was suggested."""
    keys = {"task": {"pickle": "task"}, "objective": {"metric": "m", "direction": "minimize"}, "duplicates": "train"}
    study = StudyData.model_validate({"name": study_name, "budget": {"trials": trials}, **keys}).at(project)
    proposer = DefinedByRun(study, space, applies=lambda name: not name.startswith("only"), **given)
    proposer.sampler = sampler
    search = Search(study, open_storage(study.place, study, repair=True), proposer)
    while trial := search.ask():
        values = (value_of(trial.drawn),)
        search.tell(
            Finished(trial=trial.number, at=time.time(), ending=Ending.complete, step=1, seconds=1, values=values)
        )
    return search.trials()


def value_of(params: Mapping[str, Any]) -> float:
    return sum((float(value) - 0.3) ** 2 for value in params.values() if not isinstance(value, str))


def looped(space: Space, trials: int, sampler: BaseSampler) -> list[dict[str, Any]]:
    """Return what Optuna's own loop suggests."""

    def objective(trial: optuna.Trial) -> float:
        space(trial)
        return value_of(trial.params)

    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=trials)
    return [trial.params for trial in study.trials]


def numbers(trial: Any) -> dict[str, Any]:
    values = {"x": trial.suggest_float("x", 0, 1), "y": trial.suggest_float("y", 1e-3, 1, log=True)}
    return {**values, "n": trial.suggest_int("n", 0, 4), "x again": trial.suggest_float("x", 0, 1)}


def branches(trial: Any) -> dict[str, Any]:
    values = {"optim": trial.suggest_categorical("optim", ["a", "b"])}
    return values if values["optim"] == "a" else {**values, "beta": trial.suggest_float("beta", 0, 1, step=0.1)}


@pytest.mark.parametrize(
    "sampler",
    [
        lambda: optuna.samplers.TPESampler(seed=3),
        lambda: optuna.samplers.TPESampler(seed=3, multivariate=True, n_startup_trials=5),
        lambda: optuna.samplers.GPSampler(seed=3, n_startup_trials=5),
        lambda: optuna.samplers.CmaEsSampler(seed=3),
        lambda: optuna.samplers.QMCSampler(seed=3),
        lambda: optuna.samplers.NSGAIISampler(seed=3, population_size=4),
        lambda: optuna.samplers.PartialFixedSampler({"n": 2}, optuna.samplers.RandomSampler(seed=3)),
    ],
    ids=["tpe", "multivariate tpe", "gp", "cmaes", "qmc", "nsga2", "partial"],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_any_sampler_suggests_what_it_suggests_in_optunas_own_loop(
    project: Path, sampler: Callable[[], BaseSampler]
) -> None:
    assert [each.drawn for each in searched(project, numbers, 7, sampler())] == looped(numbers, 7, sampler())


def test_a_conditional_space_is_drawn_as_in_optunas_own_loop(project: Path) -> None:
    make = optuna.samplers.TPESampler
    assert [each.drawn for each in searched(project, branches, 14, make(seed=1))] == looped(branches, 14, make(seed=1))


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_grids_end_the_search_where_they_end_optunas_own_loop(project: Path) -> None:
    def space(trial: Any) -> dict[str, Any]:
        return {"n": trial.suggest_int("n", 0, 1), "optim": trial.suggest_categorical("optim", ["a", "b"])}

    grid = {"n": [0, 1], "optim": ["a", "b"]}
    for place, sampler in (("one", optuna.samplers.GridSampler(grid)), ("two", optuna.samplers.BruteForceSampler())):
        found = [tuple(each.drawn.values()) for each in searched(project, space, 9, sampler, place)]
        assert sorted(found) == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]


def test_model_init_suggests_first_and_is_called_again_only_if_it_does(project: Path) -> None:
    def model_init(trial: Any) -> None:
        trial.suggest_categorical("layers", [1, 2])

    found = searched(project, numbers, 3, before=model_init)
    assert [list(each.drawn) for each in found] == [["layers", "x", "y", "n"]] * 3
    assert all("layers" not in each.params for each in found)
    calls: list[Any] = []
    searched(project, numbers, 3, study_name="two", before=calls.append)
    assert len(calls) == 1


def test_model_init_may_need_what_the_space_suggests(project: Path) -> None:
    def model_init(trial: Any) -> None:
        trial.suggest_float("dropout", 0, trial.params["x"] + 1)

    found = searched(project, numbers, 3, before=model_init)
    assert [list(each.drawn) for each in found] == [["x", "y", "n", "dropout"]] * 3

    def wrong(trial: Any) -> None:
        trial.params["z"]

    with pytest.raises(KeyError, match="z"):
        searched(project, numbers, 4, before=wrong)


def test_what_is_noted_on_the_trial_is_stored_with_it(project: Path) -> None:
    def space(trial: Any) -> dict[str, Any]:
        assert trial.user_attrs == trial.constraints == {}
        trial.set_user_attr("team", "blue")
        trial.set_constraint("size", -float(trial.number))
        values = numbers(trial)
        assert trial.user_attrs == {"team": "blue"} and trial.constraints == {"size": -float(trial.number)}
        assert list(trial.distributions) == ["x", "y", "n"] and trial.params["x"] == values["x"] == values["x again"]
        assert not trial.should_prune() and trial.datetime_start is not None
        assert isinstance(trial, optuna.Trial) and trial.study.study_name == "toy"
        assert len(trial.study.get_trials(states=[optuna.trial.TrialState.COMPLETE])) == trial.number
        return values

    searched(project, space, 3, name=lambda trial, values: f"{trial.number}-{trial.user_attrs['team']}")
    journal = optuna.storages.journal.JournalFileBackend(str(project / "runs/toy/optuna.journal"))
    stored = optuna.load_study(study_name="toy", storage=optuna.storages.JournalStorage(journal)).trials
    assert [each.user_attrs["team"] for each in stored] == ["blue"] * 3
    assert [each.user_attrs["name"] for each in stored] == ["0-blue", "1-blue", "2-blue"]
    assert [each.constraints["size"] for each in stored] == [0, -1, -2]


def test_what_may_not_be_trained_is_drawn_again_and_costs_no_trial(project: Path) -> None:
    def pruned(trial: Any) -> dict[str, Any]:
        if trial.suggest_float("x", 0, 1) > 0.5:
            raise optuna.TrialPruned
        return {"x": trial.params["x"]}

    def constrained(trial: Any) -> dict[str, Any]:
        trial.set_constraint("x", trial.suggest_float("x", 0, 1) - 0.5)
        return trial.params

    for place, space in (("one", pruned), ("two", constrained)):
        found = searched(project, space, 8, study_name=place)
        assert [each.ending for each in found] == [Ending.complete] * 8
        assert all(each.params["x"] <= 0.5 for each in found)


def test_the_deprecated_suggestions_are_drawn_too(project: Path) -> None:
    def space(trial: Any) -> dict[str, Any]:
        with pytest.warns(FutureWarning):
            return {
                "u": trial.suggest_uniform("u", 0, 1),
                "l": trial.suggest_loguniform("l", 1e-3, 1),
                "d": trial.suggest_discrete_uniform("d", 0, 1, 0.25),
            }

    [only] = searched(project, space, 1)
    assert 0 <= only.params["u"] <= 1 and only.params["l"] >= 1e-3 and only.params["d"] % 0.25 == 0


@pytest.mark.parametrize(
    ("use", "sentence"),
    [
        (lambda trial: trial.report(0.5, 1), "trial.report: the Trainer's evaluations are reported by themselves"),
        (lambda trial: trial.set_user_attr("ending", 1), "set_user_attr: ending is a name of sweepkit's own"),
        (lambda trial: trial.set_user_attr("evaluation:1", 1), "evaluation:1 is a name of sweepkit's own"),
    ],
)
def test_what_a_trial_cannot_do_yet_is_said(project: Path, use: Callable[[Any], None], sentence: str) -> None:
    def space(trial: Any) -> dict[str, Any]:
        use(trial)
        return numbers(trial)

    with pytest.raises(InputError, match=sentence):
        searched(project, space, 1)


def test_what_optunas_trial_does_not_have_is_an_error_with_its_name(project: Path) -> None:
    with pytest.raises(AttributeError, match=r"hp_space: trial\.set_system_attr: Optuna's trial has no such"):
        searched(project, lambda trial: trial.set_system_attr("a", 1), 1)


def test_another_trial_is_not_written_to(project: Path) -> None:
    def space(trial: Any) -> dict[str, Any]:
        trial.study.enqueue_trial({"x": 1})
        return numbers(trial)

    with pytest.raises(NotImplementedError, match="hp_space may only read"):
        searched(project, space, 1)
