"""Molecules as SMILES: the tokenizer of a model whose package brings only its vocabulary, and the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweepkit.tasks import models, references
from sweepkit.tasks.text import TextRegression

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ATOMS = r"\[[^\]]+\]|Br|Cl|>>|%[0-9]{2}|[A-Za-z]|[0-9]|[()=#+\-\\/:~@?*$.]"
"""What counts as one token of SMILES: a bracketed atom, a two-letter atom, or a single character."""


class Solvation(TextRegression):
    """Hydration free energy (kcal/mol) from a SMILES string."""

    pretrained: bool = True
    """Whether to begin with the package's weights or with random ones of the same shape."""

    def processing_class(self) -> PreTrainedTokenizerBase:
        """Return a tokenizer over the model's vocab.txt that splits by :data:`ATOMS`."""
        from tokenizers import Regex, Tokenizer, pre_tokenizers, processors
        from tokenizers.models import WordLevel
        from transformers import PreTrainedTokenizerFast

        folder = references.find(str(self.model), self.home)
        vocabulary = {token: number for number, token in enumerate((folder / "vocab.txt").read_text().split())}
        words = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
        words.pre_tokenizer = pre_tokenizers.Split(Regex(ATOMS), behavior="isolated")
        ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
        words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
        return PreTrainedTokenizerFast(
            tokenizer_object=words,
            model_max_length=512,
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            mask_token="[MASK]",
        )

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return the model with a fresh head of one output."""
        if self.pretrained:
            return super().model_init(**config)
        from transformers import AutoModelForSequenceClassification

        head = {"num_labels": 1, "problem_type": "regression"}
        return AutoModelForSequenceClassification.from_config(
            models.configuration(self.model, self.home, **{**head, **config})
        )
