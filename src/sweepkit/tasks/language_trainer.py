"""The Trainer of causal language models, perplexity included. Knows no task; apart because it imports transformers."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput


def most_likely(logits: Any, labels: torch.Tensor) -> torch.Tensor:
    """Return the most likely token at each place, so that an evaluation keeps no logits of a whole vocabulary."""
    scores: torch.Tensor = logits[0] if isinstance(logits, tuple) else logits
    return scores.argmax(dim=-1)


class LanguageTrainer(Trainer):
    """A Trainer whose evaluations report ``perplexity``, the exponential of the mean loss per token."""

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Add the perplexity to what the evaluation found."""
        output = super().evaluation_loop(*args, **kwargs)
        found = output.metrics or {}
        for name in [name for name in found if name.endswith("_loss")]:
            # Above 700 the exponential leaves what a float can hold.
            found[name.removesuffix("loss") + "perplexity"] = math.exp(found[name]) if found[name] < 700 else math.inf
        return output
