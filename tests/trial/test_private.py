"""The private names of transformers and torch that trials depend on are there in the installed versions."""

from __future__ import annotations

import inspect

import pytest
import torch
import transformers

from sweepkit.trial.private import LAST_RATES, NAMES, set_last_rates


@pytest.mark.parametrize("name", NAMES)
def test_the_trainer_still_has_the_private_name(name: str) -> None:
    there = hasattr(transformers.Trainer, name) or f"self.{name} = " in inspect.getsource(transformers.Trainer)
    assert there, f"transformers {transformers.__version__}: Trainer has no {name} any more; see sweepkit.trial.private"


def test_a_scheduler_still_keeps_its_rates_under_the_private_name() -> None:
    scheduler = torch.optim.lr_scheduler.LambdaLR(torch.optim.SGD([torch.zeros(1)], lr=0.5), lambda step: 1.0)
    gone = f"torch {torch.__version__}: LRScheduler has no {LAST_RATES} any more; see sweepkit.trial.private"
    assert getattr(scheduler, LAST_RATES) == [0.5], gone
    set_last_rates(scheduler, [0.25])
    assert scheduler.get_last_lr() == [0.25], gone
