"""Writes a trial's model with a card and a script that trains it again: ``sweep best STUDY --export DIR``.

All text is scrubbed of secrets before it is written.
"""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jinja2

from sweepkit.report.answer import Answer
from sweepkit.report.rows import endings
from sweepkit.study import words
from sweepkit.study.errors import InputError, StudyNotFound
from sweepkit.study.paths import BEST, SPEC, TASK
from sweepkit.study.secrets import of_url, scrub
from sweepkit.study.study import StudyData, Values
from sweepkit.tasks.arguments import SWEEPKIT_DEFAULTS
from sweepkit.tasks.load import kind_class, load_task
from sweepkit.tasks.prepared import about, digest
from sweepkit.tasks.references import looks_local
from sweepkit.tasks.task import ALWAYS_REPORTED, Task
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Trial, TrialSpec

LEFT_OUT = ("training_args.bin",)
"""Checkpoint files that are not exported: a pickle of every argument, paths included."""
LIBRARIES = ("sweepkit", "transformers", "torch", "datasets", "accelerate", "peft", "scikit-learn", "evaluate")
"""Whose installed versions go into ``requirements.txt``."""
KEPT_DEFAULTS = ("eval_strategy", "logging_steps", "logging_nan_inf_filter")
"""sweepkit's own TrainingArguments that change how a trial trains or evaluates."""


def export(study: StudyData, rows: Sequence[Trial], row: Trial, folder: Path) -> list[Path]:
    """Write a trial's model, hyperparameters, card, requirements and ``train.py`` to a folder; return what was written.

    The folder is created whole or not at all. Raises InputError where it exists and is not empty or the trial followed a
    schedule, StudyNotFound where the checkpoint is gone.
    """
    if row.schedule:
        raise InputError(
            f"--export: trial {row.number} was trained along a schedule, which a training script with fixed values cannot "
            f"repeat; sweep try {study.name} --trial {row.number} does, and its model is in {row.checkpoint}"
        )
    best = study.place.trial(row.number) / BEST
    if not best.exists():
        raise StudyNotFound(f"trial {row.number} of {study.name} has no checkpoint here: {best} does not exist")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--export: {folder} exists and is not empty")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        shutil.copytree(best.resolve(), scratch / "model", ignore=shutil.ignore_patterns(*LEFT_OUT))
        written = [scratch / "model", *_write(_Exported(study, rows, row), scratch)]
        scratch.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return [folder / path.name for path in written]


@dataclass(frozen=True)
class _Exported:
    """A trial and everything its files are written from."""

    study: StudyData
    rows: Sequence[Trial]
    row: Trial

    @cached_property
    def spec(self) -> TrialSpec:
        folder = self.study.place.trial(self.row.number)
        try:
            return TrialSpec.from_json((folder / SPEC).read_text())
        except FileNotFoundError:
            return TrialSpec(number=self.row.number, hyperparameters=self.row.params, directory=str(folder))

    @property
    def seed(self) -> int:
        return self.study.seed if self.spec.seed is None else self.spec.seed

    @cached_property
    def values(self) -> Values:
        return self.study.by_consumer(self.row.params)

    @cached_property
    def task(self) -> Task:
        study = self.study
        return load_task(study.task, study.home, self.values.task, trust_remote_code=study.trust_remote_code)

    @property
    def options(self) -> dict[str, Any]:
        """The task's options, searched ones included."""
        return {**self.study.task.options, **self.values.task}

    @property
    def training(self) -> dict[str, Any]:
        """TrainingArguments without the seed, the batch split as it was to fit into memory."""
        found = {name: SWEEPKIT_DEFAULTS[name] for name in KEPT_DEFAULTS} | dict(self.values.training)
        found.pop("seed", None)
        return {**found, **self.spec.batch(found)}

    @property
    def lora(self) -> dict[str, Any]:
        return {"task_type": self.task.peft_task_type, **self.values.peft} if self.values.peft else {}


def _write(exported: _Exported, folder: Path) -> list[Path]:
    study = exported.study
    file = study.task.path.rpartition(":")[0] if study.task.path else study.task.pickle
    copied = []
    if file is not None:
        copied = [folder / (TASK if study.task.pickle else "task.py")]
        shutil.copyfile(study.home / Path(file).expanduser(), copied[0])
    known = of_url(study.storage) | of_url(study.tracking.uri)
    texts = {
        "hyperparameters.yaml": _hyperparameters(exported),
        "README.md": _card(exported),
        "requirements.txt": _requirements(),
        "train.py": _script(exported),
    }
    for name, text in texts.items():
        (folder / name).write_text(scrub(text, known))
    return [*(folder / name for name in texts), *copied]


def _hyperparameters(exported: _Exported) -> str:
    from ruamel.yaml import YAML

    study, values = exported.study, exported.values
    found = {
        "study": study.name,
        "trial": exported.row.number,
        "seed": exported.seed,
        "searched": dict(exported.row.params),
        "training": exported.training,
        "model": dict(values.model),
        "peft": dict(values.peft),
        "task": {"type": study.task.type or study.task.path, **exported.options},
    }
    writer, text = YAML(), io.StringIO()
    writer.default_flow_style = False
    writer.dump({name: content for name, content in _plain(found).items() if content != {}}, text)
    return text.getvalue()


def _plain(data: Any) -> Any:
    return json.loads(json.dumps(data, default=str))


def _requirements() -> str:
    lines = ["# What the model was trained with; train.py needs sweepkit, which loads the task."]
    for name in LIBRARIES:
        try:
            lines.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:
            continue
    return "\n".join(lines) + "\n"


def _script(exported: _Exported) -> str:
    study, task = exported.study, exported.task
    rule = study.objective
    goal, last = study.objective.goals[rule.deciding], f"values[-{study.objective.mean_of}:]"
    value = {"best": "max(values)" if goal.direction == "maximize" else "min(values)", "last": "values[-1]"}
    module, _, arguments = task.arguments_type.partition(":")
    source, beside = f"type={study.task.type!r}", None
    if study.task.path is not None:
        file, _, kind = study.task.path.rpartition(":")
        source = f'path=f"{{HERE}}/task.py:{kind}"'
        beside = str((study.home / file).expanduser().resolve().parent)
    elif study.task.pickle is not None:
        source = f'pickle=str(HERE / "{TASK}")'
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sweepkit.report", ""),
        autoescape=False,  # it is Python, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["python"] = _literal
    return environment.get_template("train.py.j2").render(
        study=study.name,
        trial=exported.row.number,
        home=str(study.home),
        source=source,
        beside=beside,
        task=exported.options,
        remote=study.trust_remote_code,
        module=module,
        arguments=arguments,
        training=_with_best_checkpoint(exported, goal.metric, greater=goal.direction == "maximize"),
        model=dict(exported.values.model),
        lora=exported.lora,
        seed=exported.seed,
        measured=bool(task.metrics) or type(task).compute_metrics is not Task.compute_metrics,
        metric=goal.metric,
        value=value.get(study.objective.value, f"sum({last}) / len({last})"),
    )


def _literal(data: Any) -> str:
    """Return plain data as Python source, the entries of a dict one per line."""
    if isinstance(data, Mapping) and data:
        return "{\n" + "".join(f"    {name!r}: {value!r},\n" for name, value in _plain(data).items()) + "}"
    return repr(_plain(data))


def _with_best_checkpoint(exported: _Exported, metric: str, *, greater: bool) -> dict[str, Any]:
    """Return the TrainingArguments; where the objective is the best evaluation, its checkpoint is kept and loaded."""
    found = exported.training
    if exported.study.objective.value != "best":
        return {**found, "save_strategy": "no"}
    keep = {"load_best_model_at_end": True, "metric_for_best_model": metric, "greater_is_better": greater}
    every = found.get("eval_steps") or found["logging_steps"]
    steps = {"save_steps": every} if found["eval_strategy"] == "steps" else {}
    return {**found, "save_strategy": found["eval_strategy"], **steps, "save_total_limit": 1, **keep}


def _card(exported: _Exported) -> str:
    """Return the model card as Markdown."""
    study, row = exported.study, exported.row
    parts = [
        _front_matter(study),
        f"# {study.name}, trial {row.number}",
        study.question,
        _outcome(exported),
        "## Hyperparameters",
        "Searched:" if row.params else "Nothing was searched.",
        _table(("name", "value"), [(f"`{name}`", words.setting(value)) for name, value in row.params.items()]),
        "Fixed:" if study.training else "",
        _table(("name", "value"), [(f"`{name}`", words.setting(value)) for name, value in study.training.items()]),
        f"`hyperparameters.yaml` has all of them. Seed {exported.seed}.",
        "## Data",
        _data(exported),
        "## Use",
        "The folder `model` loads with `from_pretrained`, or, where it holds an adapter, with `PeftModel`. `train.py` trains"
        " it again; it needs sweepkit and reads the data from where the study did:",
        "```bash\npip install -r requirements.txt\npython train.py\n```",
        f"Trained with Python {platform.python_version()} and the versions in `requirements.txt`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(study: StudyData) -> str:
    base = study.task.options.get("model")
    hub = isinstance(base, str) and not looks_local(base)
    lines = ["---", "library_name: transformers", "tags: [sweepkit]"]
    lines += [f"base_model: {base}"] if hub and not (study.home / str(base)).exists() else []
    tag = kind_class(study.task.type).pipeline_tag if study.task.type else None
    lines += [f"pipeline_tag: {tag}"] if tag else []
    return "\n".join([*lines, "---"])


def _outcome(exported: _Exported) -> str:
    study, rows, row = exported.study, exported.rows, exported.row
    answer = Answer.read(study, rows)
    against, verdict, test = answer.baseline, answer.verdict, answer.test
    table = [
        (
            f"`{goal.metric}` ({goal.direction}, {study.objective.value})",
            words.value(row.values[index] if index < len(row.values) else None),
            words.value(against.values[index] if against and index < len(against.values) else None),
        )
        for index, goal in enumerate(study.objective.goals)
    ]
    goals = {goal.metric for goal in study.objective.goals}
    table += [
        (f"`{name}`", words.value(value), "")
        for name, value in sorted(_metrics(exported).items())
        if name not in goals and (name not in ALWAYS_REPORTED or name == "eval_loss")
    ]
    ended = [other for other in rows if other.ending.counts]
    which = (
        "Best mean over new seeds among the best" if verdict else "The best" if len(goals) == 1 else "Pareto-optimal"
    )
    text = [
        _table(("metric", "this model", "baseline"), table),
        f"{which} of {words.plural(len(ended), 'trial')} ({endings(ended)}), on the validation split.",
    ]
    if verdict:
        text += ["Confirmed with new seeds:", "```text\n" + "\n".join(verdict.sentences()) + "\n```"]
    else:
        text.append("Not confirmed with new seeds: part of this value may be luck.")
    if test and test["trial"] == row.number:
        counted, at, numbers = test["rows"], test["at"], words.metrics(test["metrics"])
        text.append(f"On the test split ({counted} rows), evaluated once, on {at}: {numbers}.")
    return "\n\n".join(text)


def _metrics(exported: _Exported) -> dict[str, float]:
    """Return the metrics of the evaluation whose checkpoint is exported."""
    log = TrialLog(exported.study.place.trial(exported.row.number))
    checkpoint, evaluations = log.best_checkpoint, log.evaluations
    deciding = [e for e in evaluations if checkpoint and e.number == checkpoint.evaluation] or evaluations[-1:]
    return dict(deciding[0].metrics) if deciding else {}


def _data(exported: _Exported) -> str:
    study, prepared = exported.study, exported.study.place.data / digest(exported.task)
    source = study.task.options.get("data", study.task.path or "a task made in Python")
    source = source if isinstance(source, str) else json.dumps(source, default=str)
    rows = about(prepared)["rows"] if prepared.exists() else {}
    counted = ", ".join(f"{split} {count}" for split, count in rows.items())
    return f"`{source}`" + (f": {counted} rows, digest `{prepared.name}`." if counted else ".")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
