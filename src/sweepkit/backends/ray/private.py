"""The private names of Ray that the backend depends on, all of them; a test holds them to the installed version."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from optuna.samplers import BaseSampler, TPESampler
from ray import _raylet
from ray._private import ray_constants
from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, HyperBandScheduler, MedianStoppingRule, PopulationBasedTraining
from ray.tune.search.optuna import OptunaSearch
from ray.tune.utils import object_cache

NAMES = {
    tune_controller.TuneController: ("_actor_cache", "_pending_trials", "_staged_trials", "_pending_trials_list"),
    object_cache._ObjectCache: ("increase_max",),
}
"""Class → the names it must have. Schedulers get a wrapper that hides the controller as ``_tune_controller``."""
OPTIONS: Mapping[type, Mapping[str, str]] = {
    ASHAScheduler: {"reduction_factor": "_reduction_factor"},
    HyperBandScheduler: {"max_resource": "_max_t_attr", "reduction_factor": "_eta"},
    MedianStoppingRule: {"n_startup_trials": "_min_samples_required", "n_warmup_steps": "_grace_period"},
    PopulationBasedTraining: {
        **{name: f"_{name}" for name in ("perturbation_interval", "burn_in_period", "quantile_fraction")},
        **{name: f"_{name}" for name in ("resample_probability", "perturbation_factors")},
    },
}
"""Scheduler → our pruner's option → the attribute that keeps it there."""
_ELSE = {"_brackets": 1, "_custom_explore_fn": None}
"""Attributes of schedulers that must have this value, or this length."""

_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_MODE = "RAY_AUTH_MODE"


@contextmanager
def closed_to_others() -> Iterator[None]:
    """Let a Ray that is started here listen on the loopback interface alone, and demand a token that is in no file.

    Where the user has given a token, or switched them off, that holds. Ray's own default token lies in a file that other
    users of the machine may be able to read; Ray sets the mode by itself once it was used in this process.
    """
    own = {}
    if os.environ.get(_MODE, "token") == "token" and not any(name in os.environ for name in _TOKENS):
        own = {_MODE: "token", _TOKENS[0]: secrets.token_hex(32)}
    own[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"  # one machine, as Ray has it by default on Windows and macOS
    across_machines = ray_constants.ENABLE_RAY_CLUSTER
    before = {name: os.environ[name] for name in own if name in os.environ}
    os.environ |= own
    ray_constants.ENABLE_RAY_CLUSTER = False
    _read_authentication()
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = across_machines
        for name in own:
            os.environ.pop(name, None)
        os.environ |= before
        _read_authentication()


def _read_authentication() -> None:
    """Let Ray read again what it remembers of these variables; versions without tokens have nothing to read."""
    raylet: Any = _raylet  # compiled, without types
    with suppress(AttributeError):
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


def keep_actors(wrapper: Any, trial: Trial, count: int) -> None:
    """Let Tune cache ``count`` more idle actors with this trial's resources than there are trials waiting for one."""
    wrapper._tune_controller._actor_cache.increase_max(trial.placement_group_factory, by=count)


def startable(wrapper: Any) -> Trial | None:
    """Return the first pending trial for which no actor is being started; None where there is none."""
    controller = wrapper._tune_controller
    waiting = controller._pending_trials - controller._staged_trials
    return next((trial for trial in controller._pending_trials_list if trial in waiting), None)


def set_checkpoint(trial: Trial, result: Any) -> None:
    """Make a result with a ``checkpoint`` and ``metrics`` the trial's latest checkpoint."""
    manager: Any = trial.run_metadata.checkpoint_manager
    manager._latest_checkpoint_result = result


def scheduler_options(scheduler: Any) -> tuple[dict[str, Any], list[str]]:
    """Return what one of OPTIONS' schedulers was made with, ``time_attr`` too, and which options have no counterpart."""
    found = {"time_attr": scheduler._time_attr}
    for option, attribute in OPTIONS[type(scheduler)].items():
        value = getattr(scheduler, attribute)
        found[option] = list(value) if isinstance(value, tuple) else value
    values = {name: getattr(scheduler, name, expected) for name, expected in _ELSE.items()}
    sizes = {name: len(value) if isinstance(value, list) else value for name, value in values.items()}
    if type(scheduler) is ASHAScheduler:
        found["min_resource"] = scheduler._brackets[0]._rungs[-1][0]
    return found, [name.removeprefix("_") for name, size in sizes.items() if size != _ELSE[name]]


def hyperparam_mutations(scheduler: Any) -> dict[str, Any]:
    """Return what population-based training changes: name → domain, list or function."""
    found: dict[str, Any] = scheduler._hyperparam_mutations
    return found


def optuna_sampler(search: OptunaSearch) -> BaseSampler | None:
    """Return the sampler of Ray's Optuna search; None where it has a space or points of its own."""
    given: Any = search
    if given._space or given._points_to_evaluate:
        return None
    sampler: BaseSampler = given._sampler or TPESampler(seed=given._seed)
    return sampler
