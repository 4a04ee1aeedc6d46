"""Preference optimisation of language models with TRL's DPOTrainer."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar

from sweepkit.tasks.shapes import of_columns
from sweepkit.tasks.task import Template
from sweepkit.tasks.trl import TrlTask

if TYPE_CHECKING:
    from transformers import Trainer


class DPO(TrlTask):
    """Fine-tunes a language model to prefer chosen answers to rejected ones, with TRL's DPOTrainer.

    Its arguments are DPOConfig's: ``beta``, ``loss_type``, ``max_length``, … The reference is the model as it was before
    training: with ``peft.*`` values the model without its adapter, else a copy.
    """

    template: ClassVar[Template | None] = Template(
        metric="rewards/accuracies",
        data="columns prompt, chosen and rejected, texts or messages",
        learning_rate=("1e-7", "1e-4"),
        model="HuggingFaceTB/SmolLM2-135M-Instruct",
        adapter=True,
        shapes=(
            of_columns({"prompt": "question instruction query", "chosen": "", "rejected": ""}, "text messages"),
            of_columns({"chosen": "", "rejected": ""}, "text messages"),
        ),
    )
    arguments_type: ClassVar[str] = "trl:DPOConfig"
    formats: ClassVar[tuple[tuple[str, ...], ...]] = (("prompt", "chosen", "rejected"), ("chosen", "rejected"))

    metrics: list[str | dict[str, dict[str, Any]]] = [
        *("rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected"),
        *("logps/chosen", "logps/rejected", "logits/chosen", "logits/rejected", "mean_token_accuracy", "entropy"),
    ]
    """What TRL reports beside the loss; no other metric can be added."""

    def trainer(self, **kwargs: Any) -> Trainer:
        """Return the DPOTrainer. Raises InputError for rows longer than the model reads."""
        from trl.trainer.dpo_trainer import DPOTrainer

        model, given = kwargs["model"], vars(kwargs["args"])
        if not hasattr(model, "peft_config") and not given["precompute_ref_log_probs"]:
            kwargs["ref_model"] = deepcopy(model)
        answers = ("chosen_ids", "rejected_ids")
        return self._made(
            DPOTrainer, lambda row: len(row["prompt_ids"]) + max(len(row[name]) for name in answers), **kwargs
        )

    def data_notes(self) -> list[str]:
        """Return which columns are trained, and how many rows prefer nothing."""
        notes = super().data_notes()
        for split, part in self.splits.items():
            if not hasattr(part, "__len__"):  # a stream
                continue
            if alike := sum(row["chosen"] == row["rejected"] for row in part):
                notes.append(f"{alike} of {len(part)} rows of {split} have equal chosen and rejected answers")
        return notes
