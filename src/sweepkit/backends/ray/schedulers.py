"""Ray Tune's schedulers and searchers, as a script passes them to the Trainer's own search, in our words.

What they were made with they keep in private attributes only: see :mod:`sweepkit.backends.ray.private`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.samplers import BaseSampler, RandomSampler
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
from sweepkit.backends.ray.private import hyperparam_mutations, optuna_sampler, scheduler_options
from sweepkit.study.errors import InputError
from sweepkit.study.parameters import Choice, Float, Int

_PRUNERS: Mapping[type, str] = {
    ASHAScheduler: "asha",
    HyperBandScheduler: "hyperband",
    MedianStoppingRule: "median",
    PopulationBasedTraining: "pbt",
}
"""Scheduler → our pruner."""


def pruner_of(scheduler: Any) -> dict[str, Any]:
    """Return the section ``pruner`` with the scheduler's rule. Raises InputError for one that has no counterpart."""
    kind = type(scheduler)
    if kind is FIFOScheduler:
        return {"type": "none"}
    if kind not in _PRUNERS:
        known = ", ".join(each.__name__ for each in _PRUNERS)
        raise InputError(f"hyperparameter_search: scheduler: expected one of {known}, got {kind.__name__}")
    options, others = scheduler_options(scheduler)
    counted = options.pop("time_attr")
    if counted != "training_iteration":
        expected = f"counts evaluations: time_attr='training_iteration', got {counted!r}"
        raise InputError(f"hyperparameter_search: scheduler: {kind.__name__} {expected}")
    if others:
        raise InputError(f"hyperparameter_search: scheduler: {kind.__name__} with {others[0]} is not supported")
    return {"type": _PRUNERS[kind], **{key: _whole(value) for key, value in options.items()}}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def mutations_of(scheduler: Any) -> dict[str, Float | Int | Choice]:
    """Return what a scheduler changes while trials train: name → parameter; nothing for one that only stops trials."""
    if not isinstance(scheduler, PopulationBasedTraining):
        return {}
    found = {}
    for name, domain in hyperparam_mutations(scheduler).items():
        if callable(domain) or isinstance(domain, dict):
            asked = "a distribution of tune or a list of values"
            raise InputError(f"hyperparameter_search: scheduler: hyperparam_mutations: {name} must be {asked}")
        found[name] = Choice(choices=list(domain)) if isinstance(domain, (list, tuple)) else parameter(name, domain)
    return found


def sampler_of(search: Any) -> BaseSampler:
    """Return the sampler behind a search algorithm. Raises InputError for one that has no counterpart."""
    if isinstance(search, OptunaSearch) and (sampler := optuna_sampler(search)):
        return sampler
    if isinstance(search, BasicVariantGenerator):
        return RandomSampler()
    name = search if isinstance(search, str) else type(search).__name__
    raise InputError(
        "hyperparameter_search: search_alg must be OptunaSearch without a space and points of its own, or "
        f"BasicVariantGenerator, got {name}; hp_space is the space, and sampler takes any of Optuna's samplers"
    )
