"""The built-in kinds of task: one file, or one class of a file, and one line here for each.

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
"""Kind → ``module:Class``. The class carries what differs by kind elsewhere: ``template``, ``pipeline_tag``."""
