"""Optuna's and Ray's keywords in a study's words; nothing is run."""

from __future__ import annotations

import warnings
from datetime import timedelta
from typing import Any

import optuna
import pytest

from sweepkit import InputError
from sweepkit.api.keywords import Keywords


def sections(directions: list[str] | None = None, **given: Any) -> dict[str, Any]:
    with warnings.catch_warnings(action="error"):
        return Keywords(given, directions or ["minimize"]).sections(3, "ray")


PLAIN = {
    "budget": {"trials": 3},
    "storage": "journal",
    "backend": {"type": "ray"},
    "retries": {"crash": 0},
}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({}, {}),
        ({"n_jobs": -1, "timeout": None, "stop": None, "storage": None}, {}),
        ({"n_jobs": 2}, {"backend": {"type": "ray", "parallel": 2}}),
        ({"max_concurrent_trials": 2}, {"backend": {"type": "ray", "parallel": 2}}),
        ({"timeout": 7200}, {"budget": {"trials": 3, "hours": 2.0}}),
        ({"time_budget_s": timedelta(hours=2)}, {"budget": {"trials": 3, "hours": 2.0}}),
        (
            {"resources_per_trial": {"cpu": 2, "gpu": 0.5}},
            {"backend": {"type": "ray", "cpus_per_trial": 2, "gpus_per_trial": 0.5}},
        ),
        ({"keep_checkpoints_num": 1}, {"checkpoints": {"keep": 1}}),
        ({"max_failures": 2}, {"retries": {"crash": 2}}),
        ({"storage": "sqlite:///a.db"}, {"storage": "sqlite:///a.db"}),
        ({"gc_after_trial": True}, {}),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_what_has_a_meaning_becomes_part_of_the_study(given: dict[str, Any], meant: dict[str, Any]) -> None:
    assert sections(**given) == {**PLAIN, **meant}


def test_names_directions_samplers_and_pruners_are_taken(tmp_path: Any) -> None:
    sampler, pruner = optuna.samplers.RandomSampler(), optuna.pruners.NopPruner()
    given = Keywords({"name": "mine", "sampler": sampler, "pruner": pruner, "directions": ["maximize"]}, ["minimize"])
    assert (given.name, given.sampler, given.directions) == ("mine", sampler, ["maximize"])
    assert given.pruner("optuna") is pruner and given.scheduler is None
    assert isinstance(Keywords({}, ["minimize"]).pruner("optuna"), optuna.pruners.MedianPruner)
    assert Keywords({}, ["minimize"]).pruner("ray") is None
    assert Keywords({}, ["minimize"] * 2).pruner("optuna") is None
    stored = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/a.db")
    assert sections(storage=stored)["storage"] == f"sqlite:///{tmp_path}/a.db"
    stored.engine.dispose()


def test_what_has_no_effect_is_said_with_its_reason() -> None:
    with pytest.warns(UserWarning, match=r"without effect here: verbose \(progress is what watch= shows\)"):
        Keywords({"verbose": 1}, ["minimize"])


def test_rays_schedulers_and_searchers_are_translated() -> None:
    pytest.importorskip("ray", reason="Ray Tune is missing; pip install 'sweepkit[ray]'")
    from ray import tune
    from ray.tune import schedulers as theirs
    from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter
    from ray.tune.search.optuna import OptunaSearch

    from sweepkit.backends.ray.schedulers import mutations_of, pruner_of, sampler_of
    from sweepkit.study.parameters import Choice, Float
    from sweepkit.study.samplers import PRUNERS, make_pruner

    counted = {"time_attr": "training_iteration"}
    found = [
        pruner_of(each)
        for each in (
            theirs.FIFOScheduler(),
            theirs.ASHAScheduler(grace_period=2, reduction_factor=3, max_t=20),
            theirs.HyperBandScheduler(max_t=9),
            theirs.MedianStoppingRule(grace_period=2, min_samples_required=4, **counted),
        )
    ]
    assert found == [
        {"type": "none"},
        {"type": "asha", "min_resource": 2, "reduction_factor": 3},
        {"type": "hyperband", "max_resource": 9, "reduction_factor": 3},
        {"type": "median", "n_startup_trials": 4, "n_warmup_steps": 2},
    ]
    for section in found:
        make_pruner(PRUNERS[section.pop("type")], section)
    changes = {"learning_rate": tune.loguniform(1e-5, 1e-3), "weight_decay": [0.0, 0.1]}
    population = theirs.PopulationBasedTraining(perturbation_interval=2, hyperparam_mutations=changes, **counted)
    assert pruner_of(population)["perturbation_interval"] == 2 and PRUNERS[pruner_of(population)["type"]].population
    assert mutations_of(population) == {
        "learning_rate": Float(low=1e-5, high=1e-3, log=True),
        "weight_decay": Choice(choices=[0.0, 0.1]),
    }
    for wrong, sentence in (
        (theirs.MedianStoppingRule(), "MedianStoppingRule counts evaluations: time_attr='training_iteration'"),
        (theirs.ASHAScheduler(brackets=2), "with brackets is not supported"),
        (theirs.ResourceChangingScheduler(), "expected one of .*, got ResourceChangingScheduler"),
    ):
        with pytest.raises(InputError, match=sentence):
            pruner_of(wrong)
    own = optuna.samplers.GPSampler(seed=1)
    assert sampler_of(OptunaSearch(sampler=own)) is own
    assert isinstance(sampler_of(BasicVariantGenerator()), optuna.samplers.RandomSampler)
    limited = Keywords({"search_alg": ConcurrencyLimiter(OptunaSearch(seed=1), max_concurrent=3)}, ["minimize"])
    assert isinstance(limited.sampler, optuna.samplers.TPESampler)
    assert limited.sections(1, "ray")["backend"]["parallel"] == 3
    with pytest.raises(InputError, match=r"search_alg must be OptunaSearch .*, got hyperopt"):
        sampler_of("hyperopt")
