"""The built-in kinds of task; a new one is a class and a line here.

Imports nothing, so that a command's help can list them.
"""

from __future__ import annotations

from collections.abc import Mapping

KINDS: Mapping[str, str] = {
    "text-classification": "sweepkit.tasks.text:TextClassification",
    "text-regression": "sweepkit.tasks.text:TextRegression",
    "image-classification": "sweepkit.tasks.image_classification:ImageClassification",
    "causal-lm": "sweepkit.tasks.causal_lm:CausalLM",
}
"""Kind → ``module:Class``; the class carries all that depends on the kind, such as ``template`` and ``pipeline_tag``."""
