"""Supervised fine-tuning of language models with TRL's SFTTrainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sweepkit.tasks.built_in import with_perplexity
from sweepkit.tasks.shapes import TEXT, Role
from sweepkit.tasks.task import Template
from sweepkit.tasks.trl import TrlTask

if TYPE_CHECKING:
    from transformers import Trainer


class SFT(TrlTask):
    """Fine-tunes a language model on conversations, on prompts with completions, or on texts, with TRL's SFTTrainer.

    Its arguments are SFTConfig's: ``max_length``, ``packing``, ``completion_only_loss``, ``assistant_only_loss``, …
    """

    template: ClassVar[Template | None] = Template(
        metric="loss",
        data="a column messages, columns prompt and completion, or a column text",
        learning_rate=("1e-6", "5e-4"),
        model="HuggingFaceTB/SmolLM2-135M-Instruct",
        adapter=True,
        shapes=(
            {
                "messages": Role(
                    ("messages", "conversations conversation dialog dialogue chat"), "messages", by_value=True
                )
            },
            {
                "prompt": Role(("prompt", "instruction input question query"), "text messages"),
                "completion": Role(("completion", "response output answer reply"), "text messages"),
            },
            {"text": TEXT},
        ),
    )
    arguments_type: ClassVar[str] = "trl:SFTConfig"
    formats: ClassVar[tuple[tuple[str, ...], ...]] = (("messages",), ("prompt", "completion"), ("text",))

    metrics: list[str | dict[str, dict[str, Any]]] = ["perplexity", "mean_token_accuracy", "entropy"]
    """What TRL reports beside the loss; no other metric can be added. ``perplexity`` is the exponential of the loss and
    left out where that is not the likelihood alone (``loss_type: dft``, label smoothing, mixtures of experts)."""

    def trainer(self, **kwargs: Any) -> Trainer:
        """Return the SFTTrainer. Raises InputError for rows longer than the model reads."""
        from trl.trainer.sft_trainer import SFTTrainer

        return self._made(with_perplexity(SFTTrainer), lambda row: len(row["input_ids"]), **kwargs)
