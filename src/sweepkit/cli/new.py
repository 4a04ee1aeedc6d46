"""Templates of ``sweep new``: a study folder for each built-in kind, ready to run. Knows nothing of how studies run."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from sweepkit.check.schema import schema
from sweepkit.study.errors import InputError, nearest
from sweepkit.tasks.kinds import KINDS
from sweepkit.tasks.load import kind_class, option_defaults
from sweepkit.tasks.metrics import LOWER_IS_BETTER
from sweepkit.tasks.references import PACKAGE

LOCAL = re.compile(r"^[./~]|\.[A-Za-z]{2,7}$")
"""What looks like a local path rather than a name on the hub."""
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
SCHEMA = "study.schema.json"


STUDY = """\
# yaml-language-server: $schema={schema}
# sweep check {here}   sweep run {here}   sweep schema --explain
name: {name}
question: Which learning rate, batch size and weight decay give the best {metric}?

task:
  type: {kind}
  model: {model}
  data: {data}        # {expects}
{options}
training:                        # fixed TrainingArguments of every trial, by their own names
  num_train_epochs: 3

objective: {{metric: {metric}, direction: {direction}}}

space:
  learning_rate: {{low: {low}, high: {high}, log: true}}
  per_device_train_batch_size: {{choices: [8, 16, 32], role: nuisance}}
  weight_decay: {{low: 0.0, high: 0.3}}

baseline: {{learning_rate: 5e-5}}  # trial 0: what one would do without tuning
sampler: {{type: tpe, seed: 0}}
pruner: {{type: asha, min_resource: 1, reduction_factor: 3}}    # counts evaluations; one per epoch
budget: {{trials: 20}}
checkpoints: {{keep: 3}}
"""

README = """\
# {name}

Which learning rate, batch size and weight decay give the best `{metric}` on `{data_shown}`?

```
# every mistake at once, nothing runs
sweep check {here}
# 20 trials; the same command goes on after an interruption
sweep run {here}
# what came out, the path of the best checkpoint, curves and parameters in MLflow
sweep show {name}
sweep best {name}
sweep ui {name}
```

Data: {expects}. `sweep schema --explain` says what each key of `study.yaml` means.
"""


def write(folder: Path, *, kind: str, data: str, model: str, metric: str = "") -> list[Path]:
    """Write a study folder and return the files, study.yaml first.

    ``data`` and ``model`` are local paths (from here), names on the hub, or ``package:NAME/path``. Raises InputError,
    and writes nothing, where something of that name exists or an input is missing.
    """
    if kind not in KINDS:
        raise InputError(f"--kind: there is no kind {kind}; built in are {', '.join(KINDS)}{nearest(kind, KINDS)}")
    for option, value in (("--data", data), ("--model", model)):
        if not value:
            raise InputError(f"{option} is needed: a local path, a name on the hub, or package:NAME/path")
    name = folder.resolve().name
    if not NAME.fullmatch(name):
        raise InputError(f"{name} cannot name a study: letters, digits, dot, dash and underscore, at most 100")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists already and is not overwritten; choose another name")
    task = kind_class(kind)
    template = task.template
    assert template is not None
    goal = metric.removeprefix("eval_") or template.metric
    reported = option_defaults(task)["metrics"]
    own = goal not in (*reported, "loss")
    (key, source), *_ = data_reference(data, folder).items()
    values = {
        "kind": kind,
        "name": name,
        "here": os.path.relpath(folder / "study.yaml"),
        "schema": SCHEMA,
        "model": _text(reference(model, folder, "--model")),
        "data": f"{{{key}: {_text(source)}}}",
        "data_shown": data,
        "expects": template.data,
        "options": "".join(f"  {name}: {value}\n" for name, value in template.options.items())
        + (f"  metrics: [{', '.join(map(_text, [*reported, goal]))}]\n" if own else ""),
        "metric": f"eval_{goal}",
        "direction": "minimize" if goal in LOWER_IS_BETTER else "maximize",
        "low": template.learning_rate[0],
        "high": template.learning_rate[1],
    }
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "study.yaml": STUDY.format(**values),
        "README.md": README.format(**values),
        SCHEMA: json.dumps(schema(), indent=1, ensure_ascii=False) + "\n",
    }
    for file, text in files.items():
        (folder / file).write_text(text)
    return [folder / file for file in files]


def reference(text: str, folder: Path, option: str) -> str:
    """Return a model or file as the study file in ``folder`` must name it. Raises InputError where it is missing."""
    if text.startswith(PACKAGE) or "://" in text:
        return text
    path = Path(text).expanduser()
    if path.exists():
        relative = os.path.relpath(path.resolve(), folder.resolve())
        return relative if relative.count("..") <= 4 else str(path.resolve())
    if LOCAL.search(text):
        raise InputError(f"{option}: there is no file or folder {text}{_beside(path)}")
    return text


def _beside(path: Path) -> str:
    folder = path.parent
    return nearest(path.name, [other.name for other in folder.iterdir()]) if folder.is_dir() else ""


def data_reference(text: str, folder: Path) -> dict[str, str]:
    """Return ``task.data`` as the study file in ``folder`` must say it. Raises InputError where a file is missing."""
    local = text.startswith(PACKAGE) or "://" in text or Path(text).expanduser().exists()
    return {"path" if local else "name": reference(text, folder, "--data")}


def _text(value: str) -> str:
    """Return a text as YAML reads it back, quoted where it must be."""
    plain = re.fullmatch(r"[A-Za-z_./][A-Za-z0-9_./-]*", value) and value not in ("true", "false", "null")
    return value if plain else json.dumps(value)
