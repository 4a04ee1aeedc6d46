"""The model card of an exported model: what was asked, what came out, how it was made. Text only; knows no model."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sweepkit.report import rows as results
from sweepkit.report.confirmation import confirmed, tested
from sweepkit.study import words
from sweepkit.study.study import StudyData
from sweepkit.tasks import ALWAYS_REPORTED
from sweepkit.trial.trial import Trial

LIBRARIES = ("sweepkit", "transformers", "torch", "datasets", "optuna", "peft")


def card(study: StudyData, rows: Sequence[Trial], row: Trial, facts: Mapping[str, Any]) -> str:
    """Return the card of a trial's model as Markdown; ``facts``: ``rows`` by split, ``digest``, ``metrics``, ``seed``."""
    parts = [
        _front(study),
        f"# {study.name}, trial {row.number}",
        study.question,
        _outcome(study, rows, row, facts),
        "## Hyperparameters",
        "Searched:" if row.params else "Nothing was searched.",
        _table(("name", "value"), [(f"`{name}`", words.setting(value)) for name, value in row.params.items()]),
        "Fixed:" if study.training else "",
        _table(("name", "value"), [(f"`{name}`", words.setting(value)) for name, value in study.training.items()]),
        f"`hyperparameters.yaml` has all of them. Seed {facts['seed']}.",
        "## Data",
        _data(study, facts),
        "## Use",
        "The folder `model` loads with `from_pretrained`, or, where it holds an adapter, with `PeftModel`. `train.py` trains"
        " it again:",
        "```bash\npython train.py\n```",
        "## Made with",
        ", ".join(_versions()) + ".",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(study: StudyData) -> str:
    base = study.task.options.get("model")
    hub = isinstance(base, str) and base.count("/") <= 1 and not base.startswith(("package:", ".", "/", "~"))
    lines = ["---", "library_name: transformers", "tags: [sweepkit]"]
    lines += [f"base_model: {base}"] if hub and not (study.home / str(base)).exists() else []
    lines += [f"pipeline_tag: {study.task.type}"] if study.task.type in ("text-classification",) else []
    return "\n".join([*lines, "---"])


def _outcome(study: StudyData, rows: Sequence[Trial], row: Trial, facts: Mapping[str, Any]) -> str:
    against = results.baseline(rows)
    table = [
        (
            f"`{goal.metric}` ({goal.direction}, {study.objective.value})",
            words.value(row.values[index] if index < len(row.values) else None),
            words.value(against.values[index] if against and index < len(against.values) else None),
        )
        for index, goal in enumerate(study.objective.goals)
    ]
    goals = {goal.metric for goal in study.objective.goals}
    others = {
        name: value
        for name, value in facts["metrics"].items()
        if name not in goals and (name not in ALWAYS_REPORTED or name == "eval_loss")
    }
    table += [(f"`{name}`", words.value(value), "") for name, value in sorted(others.items())]
    ended = [other for other in rows if other.ending.counts]
    text = [_table(("metric", "this model", "baseline"), table)]
    verdict, test = confirmed(study, rows), tested(study)
    best = "Of the best" if verdict else "The best"
    how = ", the one with the best mean over new seeds" if verdict else ""
    trials = f"{words.plural(len(ended), 'trial')} ({results.endings(ended)})"
    text.append(f"{best} of {trials}{how}; values are of the validation split.")
    if verdict:
        text += ["Confirmed with new seeds:", "```text\n" + "\n".join(verdict["sentences"]) + "\n```"]
    else:
        text.append("It was not confirmed with new seeds; some of its value may be luck.")
    if test and test["trial"] == row.number:
        numbers = ", ".join(f"`{n}` {words.value(v)}" for n, v in test["metrics"].items() if not n.endswith(_TIMING))
        text.append(f"On the test split ({test['rows']} rows), evaluated once, on {test['at']}: {numbers}.")
    return "\n\n".join(text)


_TIMING = ("_runtime", "_per_second", "_preparation_time")


def _data(study: StudyData, facts: Mapping[str, Any]) -> str:
    source = study.task.options.get("data", study.task.path or "a task made in Python")
    counted = ", ".join(f"{split} {count}" for split, count in facts["rows"].items())
    source = source if isinstance(source, str) else json.dumps(source, default=str)
    return f"`{source}`" + (f": {counted} rows, digest `{facts['digest']}`." if counted else ".")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _versions() -> list[str]:
    found = [f"Python {platform.python_version()}"]
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found
