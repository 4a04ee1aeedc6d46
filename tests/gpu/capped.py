"""Text classification that runs out of memory: on a GPU within a limit of its own, on a CPU above a micro-batch."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel, Trainer

from sweepkit.tasks.text import TextClassification


class Capped(TextClassification):
    """Knows no study: both limits are options."""

    limit_mb: float = 0.0
    """Of a GPU; torch's allocator refuses more. 0: none."""
    fits: int = 0
    """On a CPU, the largest micro-batch that does not raise. 0: none."""

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return the model, within the limit."""
        if self.limit_mb and torch.cuda.is_available():
            total = torch.cuda.get_device_properties(0).total_memory / 1e6
            torch.cuda.set_per_process_memory_fraction(self.limit_mb / total)
        return super().model_init(**config)

    def trainer(self, **kwargs: Any) -> Trainer:
        """Return a Trainer that raises on a CPU what a GPU would."""
        trainer = super().trainer(**kwargs)
        step = trainer.training_step

        def raising(model: Any, inputs: Any, *more: Any) -> Any:
            if self.fits and trainer.args.device.type == "cpu" and trainer.args.train_batch_size > self.fits:
                raise torch.OutOfMemoryError("out of memory: as a GPU raises it")
            return step(model, inputs, *more)

        trainer.training_step = raising
        return trainer
