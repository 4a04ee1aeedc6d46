"""The private names of transformers' Trainer and torch that trials depend on; a test holds them to the installed versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import Trainer

LAST_RATES = "_last_lr"
"""What one of torch's schedulers says that the rates are, which it keeps in no public attribute."""
NAMES = ("_tr_loss", "_evaluate", "_load_from_checkpoint", "_get_train_sampler", "_get_eval_sampler")
"""Attributes that a Trainer must have."""


def training_loss(trainer: Trainer) -> torch.Tensor | None:
    """Return the loss summed since the last logging step, on its device; once it is not finite, it stays so.

    None where the Trainer's own loop did not begin.
    """
    return getattr(trainer, "_tr_loss", None)


def load_weights(trainer: Trainer, checkpoint: str) -> None:
    """Load a checkpoint's weights into the Trainer's model, adapters included."""
    trainer._load_from_checkpoint(checkpoint)


def wrap_loading(trainer: Trainer, wrap: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    """Replace this Trainer's loading of weights, on resuming and for the best model, by ``wrap`` of it."""
    trainer._load_from_checkpoint = wrap(trainer._load_from_checkpoint)  # type: ignore[method-assign]  # of this one Trainer


def train_sampler(trainer: Trainer) -> Callable[..., Any]:
    """Return the factory of the training data loader's sampler."""
    return trainer._get_train_sampler


def set_train_sampler(trainer: Trainer, sampler: Callable[..., Any]) -> None:
    """Replace the factory of this Trainer's training sampler."""
    trainer._get_train_sampler = sampler  # type: ignore[method-assign]  # of this one Trainer


def eval_sampler(trainer: Trainer, rows: Any) -> Any:
    """Return the sampler of these evaluation rows."""
    return trainer._get_eval_sampler(rows)


def set_eval_sampler(trainer: Trainer, sampler: Callable[..., Any]) -> None:
    """Replace the factory of this Trainer's evaluation sampler."""
    trainer._get_eval_sampler = sampler  # type: ignore[method-assign]  # of this one Trainer


def set_last_rates(scheduler: Any, rates: Sequence[float]) -> None:
    """Let a scheduler report these learning rates until its next step."""
    setattr(scheduler, LAST_RATES, list(rates))


def after_evaluations(trainer: Trainer, read: Callable[[Mapping[str, Any], bool], None]) -> None:
    """Call ``read(metrics, on_start)`` with what each evaluation of the training loop returns, all its sets together.

    The callback hook ``on_evaluate`` is called for each set alone, and before subclasses add to what ``evaluate`` returns.
    """
    evaluate = trainer._evaluate

    def evaluating(
        trial: Any, ignore_keys_for_eval: list[str] | None, skip_scheduler: bool = False
    ) -> dict[str, float]:
        metrics = evaluate(trial, ignore_keys_for_eval, skip_scheduler=skip_scheduler)
        read(metrics, skip_scheduler)  # the loop leaves the scheduler out where it evaluates before the first step only
        return metrics

    trainer._evaluate = evaluating  # type: ignore[method-assign]  # of this one Trainer
