"""The private names of Ray Tune that the backend depends on are there in the installed version."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest

ray = pytest.importorskip("ray", reason="Ray Tune is missing; pip install 'sweepkit[ray]'")

GONE = f"ray {ray.__version__}: {{}} has no {{}} any more; see sweepkit.backends.ray.private"


def test_tunes_classes_still_have_the_private_names() -> None:
    from sweepkit.backends.ray.private import NAMES, OPTIONS

    kept = {owner: ("_time_attr", *attributes.values()) for owner, attributes in OPTIONS.items()}
    for owner, names in {**NAMES, **kept}.items():
        for name in names:
            source = inspect.getsource(owner)
            assigned = f"self.{name} = " in source or f"self.{name}: " in source
            assert hasattr(owner, name) or assigned, GONE.format(owner.__name__, name)


def test_the_wrapper_that_schedulers_get_still_hides_the_controller_under_the_private_name() -> None:
    from ray.tune.execution import tune_controller

    source = inspect.getsource(tune_controller)
    assert "self._tune_controller = " in source, GONE.format("the schedulers' wrapper", "_tune_controller")


def test_a_trials_latest_checkpoint_can_be_set() -> None:
    from ray.tune.experiment import Trial

    from sweepkit.backends.ray.private import set_checkpoint

    trial = Trial("member", trial_id="00000", stub=True)
    set_checkpoint(trial, SimpleNamespace(checkpoint=[3], metrics={}))
    assert trial.checkpoint == [3], GONE.format("the checkpoint manager", "_latest_checkpoint_result")
