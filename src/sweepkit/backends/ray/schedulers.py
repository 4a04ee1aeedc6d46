"""Ray Tune's schedulers and searchers, as a script passes them to the Trainer's own search, in our words.

What they were made with they keep in private attributes only; a test holds these to the installed version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
)
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from sweepkit.backends.ray.domains import parameter
from sweepkit.study.errors import InputError
from sweepkit.study.parameters import Choice, Float, Int

_OPTIONS: Mapping[type, tuple[str, Mapping[str, str]]] = {
    ASHAScheduler: ("asha", {"reduction_factor": "_reduction_factor"}),
    HyperBandScheduler: ("hyperband", {"max_resource": "_max_t_attr", "reduction_factor": "_eta"}),
    MedianStoppingRule: ("median", {"n_startup_trials": "_min_samples_required", "n_warmup_steps": "_grace_period"}),
    PopulationBasedTraining: (
        "pbt",
        {
            name: f"_{name}"
            for name in (
                "perturbation_interval",
                "burn_in_period",
                "quantile_fraction",
                "resample_probability",
                "perturbation_factors",
            )
        },
    ),
}
"""Scheduler → our pruner, and its options' attributes there."""
_ELSE = {"_brackets": 1, "_custom_explore_fn": None}
"""Attributes that must have this value, or this length."""


def pruner_of(scheduler: Any) -> dict[str, Any]:
    """Return the section ``pruner`` with the scheduler's rule. Raises InputError for one that has no counterpart."""
    kind = type(scheduler)
    if kind is FIFOScheduler:
        return {"type": "none"}
    if kind not in _OPTIONS:
        known = ", ".join(each.__name__ for each in _OPTIONS)
        raise InputError(f"hyperparameter_search: scheduler: expected one of {known}, got {kind.__name__}")
    name, options = _OPTIONS[kind]
    if scheduler._time_attr != "training_iteration":
        counted = f"counts evaluations: time_attr='training_iteration', got {scheduler._time_attr!r}"
        raise InputError(f"hyperparameter_search: scheduler: {kind.__name__} {counted}")
    for attribute, expected in _ELSE.items():
        value = getattr(scheduler, attribute, expected)
        if (len(value) if isinstance(value, list) else value) != expected:
            raise InputError(f"hyperparameter_search: scheduler: {kind.__name__} with {attribute[1:]} is not supported")
    found = {option: getattr(scheduler, attribute) for option, attribute in options.items()}
    if kind is ASHAScheduler:
        found["min_resource"] = scheduler._brackets[0]._rungs[-1][0]
    return {"type": name, **{key: _whole(list(v) if isinstance(v, tuple) else v) for key, v in found.items()}}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def mutations_of(scheduler: Any) -> dict[str, Float | Int | Choice]:
    """Return what a scheduler changes while trials train: name → parameter; nothing for one that only stops trials."""
    if not isinstance(scheduler, PopulationBasedTraining):
        return {}
    found = {}
    for name, domain in scheduler._hyperparam_mutations.items():
        if callable(domain) or isinstance(domain, dict):
            asked = "a distribution of tune or a list of values"
            raise InputError(f"hyperparameter_search: scheduler: hyperparam_mutations: {name} must be {asked}")
        found[name] = Choice(choices=list(domain)) if isinstance(domain, (list, tuple)) else parameter(name, domain)
    return found


def sampler_of(search: Any) -> BaseSampler:
    """Return the sampler behind a search algorithm. Raises InputError for one that has no counterpart."""
    if isinstance(search, OptunaSearch) and not (search._space or search._points_to_evaluate):
        made: BaseSampler = search._sampler or TPESampler(seed=search._seed)
        return made
    if isinstance(search, BasicVariantGenerator):
        return RandomSampler()
    name = search if isinstance(search, str) else type(search).__name__
    raise InputError(
        "hyperparameter_search: search_alg must be OptunaSearch without a space and points of its own, or "
        f"BasicVariantGenerator, got {name}; hp_space is the space, and sampler takes any of Optuna's samplers"
    )
