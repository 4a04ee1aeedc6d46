"""The built-in kinds of task; a new one is a class and a line here.

Imports none of them before it is used, so that a command's help can list them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweepkit.tasks.task import Task

KINDS: Mapping[str, str] = {
    "text-classification": "sweepkit.tasks.text:TextClassification",
    "multi-label-classification": "sweepkit.tasks.multi_label:MultiLabelClassification",
    "text-regression": "sweepkit.tasks.text:TextRegression",
    "token-classification": "sweepkit.tasks.token_classification:TokenClassification",
    "image-classification": "sweepkit.tasks.image_classification:ImageClassification",
    "causal-lm": "sweepkit.tasks.causal_lm:CausalLM",
    "sentence-similarity": "sweepkit.tasks.sentence_similarity:SentenceSimilarity",
    "dpo": "sweepkit.tasks.dpo:DPO",
    "seq2seq": "sweepkit.tasks.seq2seq:Seq2Seq",
    "question-answering": "sweepkit.tasks.question_answering:QuestionAnswering",
    "sft": "sweepkit.tasks.sft:SFT",
}
"""Kind → ``module:Class``; the class carries all that depends on the kind, such as ``template`` and ``pipeline_tag``."""


def kind_class(kind: str) -> type[Task]:
    """Return the class of a built-in kind, a key of KINDS."""
    module, _, name = KINDS[kind].partition(":")
    cls: type[Task] = getattr(importlib.import_module(module), name)
    return cls
