"""The private names of transformers that trials depend on are there in the installed version."""

from __future__ import annotations

import inspect

import pytest
import transformers

from sweepkit.trial.private import NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_trainer_still_has_the_private_name(name: str) -> None:
    there = hasattr(transformers.Trainer, name) or f"self.{name} = " in inspect.getsource(transformers.Trainer)
    assert there, f"transformers {transformers.__version__}: Trainer has no {name} any more; see sweepkit.trial.private"
