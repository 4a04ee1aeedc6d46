"""The King James Bible as a pip package brings it, read letter by letter."""

from __future__ import annotations

import ast
import string
from typing import TYPE_CHECKING, Literal

from sweepkit.tasks import references
from sweepkit.tasks.causal_lm import CausalLM

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import PreTrainedTokenizerBase

LETTERS = "\n " + string.ascii_letters + "Ææ" + ",.:;!?()[]-—’"
"""The vocabulary: every character of the text is a token of its own."""
MATTHEW = "The book of the generation of Jesus Christ"
"""Where the New Testament begins."""


class Verses(CausalLM):
    """Predicts the next letter of the Old Testament, or of the New."""

    testament: Literal["old", "new"] = "old"
    """Which part to read."""

    def rows(self) -> DatasetDict:
        """Return the paragraphs of one testament; of each hundred eight are for validation and two for a last test."""
        from datasets import Dataset, DatasetDict

        module = ast.parse(references.find(str(self.source.path), self.home).read_text())
        text = next(
            node.value for node in ast.walk(module) if isinstance(node, ast.Constant) and "\n" in str(node.value)
        )
        old, matthew, new = str(text).strip().partition(MATTHEW)
        lines = {"old": old, "new": matthew + new}[self.testament].splitlines(keepends=True)
        parts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
        for number, line in enumerate(lines):
            place = number % 100
            parts["train" if place < 90 else "validation" if place < 98 else "test"].append(line)
        return DatasetDict({split: Dataset.from_dict({"text": part}) for split, part in parts.items()})

    def processing_class(self) -> PreTrainedTokenizerBase:
        """Return a tokenizer over :data:`LETTERS`."""
        from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
        from tokenizers.models import WordLevel
        from transformers import PreTrainedTokenizerFast

        letters = Tokenizer(WordLevel({letter: number for number, letter in enumerate(LETTERS)}, unk_token=" "))
        letters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
        letters.decoder = decoders.Fuse()
        return PreTrainedTokenizerFast(tokenizer_object=letters)
