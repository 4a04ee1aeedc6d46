"""The text that goes into a training script, and what all kinds of task put into it. Knows no study."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweepkit.report import snippets

PACKAGE = "package:"


@dataclass(kw_only=True)
class Parts:
    """Text that goes into a script."""

    imports: list[str] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    code: str = ""
    prepare: str = "    splits = read()"
    """Makes ``splits`` and whatever the model and the Trainer are given."""
    model: str = ""
    arguments: str = "TrainingArguments"
    trainer: str = "Trainer"
    keywords: str = ""
    needs: list[str] = field(default_factory=lambda: ["torch", "transformers", "datasets", "accelerate"])
    but: str = ""
    """What of sweepkit it needs all the same."""


def place(parts: Parts, text: str, home: Path) -> Any:
    """Return a reference as the script names it: package data by package and path, a file of the study beside the script."""
    if text.startswith(PACKAGE):
        name, _, inside = text.removeprefix(PACKAGE).partition("/")
        parts.imports += ["from importlib.util import find_spec"]
        return _Code(f"find_spec({name!r}).submodule_search_locations[0] + {'/' + inside!r}")
    path = (home / Path(text).expanduser()).resolve()
    return str(path) if path.exists() else text


class _Code:
    """An expression that stands in the script as it is."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def measures(parts: Parts, task: Any, found: str, labels: str = "labels", classes: int | None = None) -> str:
    """The code of ``compute_metrics``; metrics that are not bundled come from `evaluate`."""
    classes = classes or len(parts.constants.get("LABELS", ()))
    lines, helper = [], ""
    for entry in task.metrics:
        name, options = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
        if name in ("f1", "precision", "recall"):
            options = {"average": "binary" if classes == 2 else "macro", "zero_division": 0, **options}
        if name in snippets.SCORES:
            score = snippets.SCORES[name].replace("{options}", repr(options))
            lines.append(f"        {name!r}: float({score}),")
            if "stats." in score:
                parts.imports += ["from scipy import stats"]
                helper = snippets.CORRELATION
            if "sk." in score:
                parts.imports += ["from sklearn import metrics as sk"]
        else:
            parts.imports += ["import evaluate"]
            parts.needs += ["evaluate"] if "evaluate" not in parts.needs else []
            where = place(parts, name, task.home)
            lines.append(
                f"        **evaluate.load({where!r}).compute(predictions=found, references=labels, **{options!r}),"
            )
    parts.needs += ["scikit-learn"] if "scikit-learn" not in parts.needs else []
    body = "\n".join(lines)
    return f'''{helper}def compute_metrics(prediction):
    """Return the metrics of an evaluation."""
    scores = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    labels = prediction.label_ids
    found, labels = {found}, {labels}
    return {{
{body}
    }}
'''


def longest(task: Any, model: Path) -> int | None:
    """The longest input that tokenizer and model allow, as :func:`sweepkit.tasks.models.longest` has it."""
    config, tokenizer = read_json(model / "config.json"), read_json(model / "tokenizer_config.json")
    if not config and isinstance(task.model, str):  # an adapter: the base model knows
        config = read_json((task.home / Path(task.model).expanduser()) / "config.json")
    limits = [tokenizer.get("model_max_length", 10**30)]
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and positions > 0:
        shifted = config.get("model_type") in ("roberta", "xlm-roberta", "camembert")
        limits.append(positions - ((config.get("pad_token_id") or 0) + 1 if shifted else 0))
    shortest = int(min(limits))
    return shortest if shortest < 1_000_000 else None


def read_json(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds; nothing where there is none."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found
