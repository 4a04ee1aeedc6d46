"""The private names of Ray Tune that the backend depends on, all of them; a test holds them to the installed version."""

from __future__ import annotations

from typing import Any

from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial
from ray.tune.utils import object_cache

__all__ = ["NAMES", "keep_actors", "set_checkpoint", "startable"]

NAMES = {
    tune_controller.TuneController: ("_actor_cache", "_pending_trials", "_staged_trials", "_pending_trials_list"),
    object_cache._ObjectCache: ("increase_max",),
}
"""Class → the names it must have. Schedulers get a wrapper that hides the controller as ``_tune_controller``."""


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
