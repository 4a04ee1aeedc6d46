"""Writes a trial's model with a card and a script that trains it again: ``sweep best STUDY --export DIR``.

All text is scrubbed of secrets before it is written.
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
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
from sweepkit.study.damage import refuse_damaged
from sweepkit.study.errors import InputError, StudyNotFound
from sweepkit.study.files import jsonable
from sweepkit.study.objective import COSTS, Goal
from sweepkit.study.paths import ARGUMENTS, BEST, SEAL, TASK
from sweepkit.study.secrets import hide, lost, scrub
from sweepkit.study.study import StudyData, Values
from sweepkit.tasks.arguments import SWEEPKIT_DEFAULTS
from sweepkit.tasks.kinds import kind_class
from sweepkit.tasks.load import task_of
from sweepkit.tasks.prepared import about, digest
from sweepkit.tasks.references import looks_local
from sweepkit.tasks.task import ALWAYS_REPORTED, Task
from sweepkit.trial.trial import Trial, TrialSpec, read_spec

LIBRARIES = (
    *("sweepkit", "transformers", "torch", "datasets", "accelerate", "peft", "scikit-learn", "evaluate"),
    *("trl", "sentence-transformers", "seqeval", "rouge-score", "sacrebleu"),
)
"""Whose installed versions go into ``requirements.txt``."""
KEPT_DEFAULTS = ("eval_strategy", "logging_steps", "logging_nan_inf_filter")
"""sweepkit's own TrainingArguments that change how a trial trains or evaluates."""


def export(study: StudyData, rows: Sequence[Trial], row: Trial, folder: Path) -> list[Path]:
    """Write a trial's model, hyperparameters, card, requirements and ``train.py`` to a folder; return what was written.

    The folder is created whole or not at all. Raises InputError where it exists and is not empty or the trial followed a
    schedule, StudyNotFound where the checkpoint is gone.
    """
    _refuse_schedule("--export", study, row)
    best = study.place.trial(row.number) / BEST
    if not best.exists():
        raise StudyNotFound(f"trial {row.number} of {study.name} has no checkpoint here: {best} does not exist")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--export: {folder} exists and is not empty")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _copy_model(best, scratch / "model")
        written = [scratch / "model", *_write(_Exported(study, rows, row), scratch)]
        scratch.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return [folder / path.name for path in written]


def _refuse_schedule(option: str, study: StudyData, row: Trial) -> None:
    if row.schedule:
        raise InputError(
            f"{option}: trial {row.number} was trained along a schedule, which a training script with fixed values cannot "
            f"repeat; sweep try {study.name} --trial {row.number} does, and its model is in {row.checkpoint}"
        )


def publishable(study: StudyData, rows: Sequence[Trial], row: Trial, folder: Path, *, name: str) -> None:
    """Write what the Hub shows of a trial's model, called ``name`` there: its files, the card and the hyperparameters."""
    _refuse_schedule("--push", study, row)
    exported = _Exported(study, rows, row)
    _copy_model(study.place.trial(row.number) / BEST, folder)
    (folder / "README.md").write_text(scrub(_card(exported, hub=name)))
    (folder / "hyperparameters.yaml").write_text(scrub(_hyperparameters(exported)))


def _copy_model(best: Path, folder: Path) -> None:
    refuse_damaged(best)
    shutil.copytree(best.resolve(), folder, ignore=shutil.ignore_patterns(ARGUMENTS, SEAL))


@dataclass(frozen=True)
class _Exported:
    """A trial and everything its files are written from."""

    study: StudyData
    rows: Sequence[Trial]
    row: Trial

    @cached_property
    def spec(self) -> TrialSpec:
        folder = self.study.place.trial(self.row.number)
        plain = TrialSpec(number=self.row.number, hyperparameters=self.row.params, directory=str(folder))
        return read_spec(folder) or plain

    @property
    def command(self) -> str:
        """What ``train.py`` is started with: a process for each rank."""
        return f"torchrun --nproc-per-node {self.spec.ranks}" if self.spec.ranks > 1 else "python"

    @property
    def seed(self) -> int:
        return self.study.seed if self.spec.seed is None else self.spec.seed

    @cached_property
    def values(self) -> Values:
        return self.study.by_consumer(self.row.params)

    @cached_property
    def task(self) -> Task:
        study = self.study
        return task_of(study, self.values.task)

    @property
    def options(self) -> dict[str, Any]:
        """The task's options, searched ones included."""
        return {**self.study.task.options, **self.values.task}

    @property
    def training(self) -> dict[str, Any]:
        """TrainingArguments without the seed, the batch split as it was to fit into memory."""
        found = {name: SWEEPKIT_DEFAULTS[name] for name in KEPT_DEFAULTS} | dict(self.values.training)
        found = {name: value for name, value in found.items() if name not in ("seed", "report_to")}
        return {**found, **self.spec.batch(found)}


def _write(exported: _Exported, folder: Path) -> list[Path]:
    task, home = exported.study.task, exported.study.home
    file = task.path.rpartition(":")[0] if task.path else task.pickle
    copied = []
    if file is not None:
        copied = [folder / (TASK if task.pickle else "task.py")]
        shutil.copyfile(home / Path(file).expanduser(), copied[0])
    texts = {
        "hyperparameters.yaml": _hyperparameters(exported),
        "README.md": _card(exported),
        "requirements.txt": _requirements(),
        "train.py": _script(exported),
    }
    for name, text in texts.items():
        (folder / name).write_text(scrub(text))
    return [*(folder / name for name in texts), *copied]


def _hyperparameters(exported: _Exported) -> str:
    from ruamel.yaml import YAML

    study, values = exported.study, exported.values
    found = {
        "study": study.name,
        "trial": exported.row.number,
        "seed": exported.seed,
        "searched": exported.row.params,
        "training": exported.training,
        "model": values.model,
        "peft": values.peft,
        "task": {"type": study.task.type or study.task.path, **exported.options},
    }
    writer, text = YAML(), io.StringIO()
    writer.default_flow_style = False
    writer.dump({name: content for name, content in hide(jsonable(found)).items() if content != {}}, text)
    return text.getvalue()


def _requirements() -> str:
    lines = ["# What the model was trained with; train.py needs sweepkit, which loads the task."]
    for name in LIBRARIES:
        try:
            lines.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:
            continue
    return "\n".join(lines) + "\n"


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sweepkit.report", ""),
        autoescape=False,  # Python and Markdown, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"python": _literal, "value": words.value, "setting": words.setting}
    return environment.get_template(name)


def _literal(data: Any) -> str:
    """Return plain data as Python source, the entries of a dict one per line."""
    if isinstance(data, Mapping) and data:
        return "{\n" + "".join(f"    {name!r}: {value!r},\n" for name, value in jsonable(data).items()) + "}"
    return repr(jsonable(data))


def _script(exported: _Exported) -> str:
    study, task = exported.study, exported.task
    goals = study.objective.goals
    goal = next((each for each in (goals[study.objective.deciding], *goals) if each.metric not in COSTS), goals[0])
    module, _, arguments = task.arguments_type.partition(":")
    source, beside = f"type={study.task.type!r}", None
    if study.task.path is not None:
        file, _, kind = study.task.path.rpartition(":")
        source = f'path=f"{{HERE}}/task.py:{kind}"'
        beside = str((study.home / file).expanduser().resolve().parent)
    elif study.task.pickle is not None:
        source = f'pickle=str(HERE / "{TASK}")'
    plain = {"TASK": exported.options, "TRAINING": _with_best_checkpoint(exported, goal)}
    hidden = hide(jsonable(plain))
    return _template("train.py.j2").render(
        study=study,
        trial=exported.row.number,
        source=source,
        beside=beside,
        task=hidden["TASK"],
        secrets=[_from_environment(path) for path in lost(hidden, {})],
        module=module,
        arguments=arguments,
        training=hidden["TRAINING"],
        values=exported.values,
        seed=exported.seed,
        ranks=exported.spec.ranks,
        command=exported.command,
        objective={**goal.model_dump(), "value": study.objective.rule},
        cost=goal.metric in COSTS,
    )


def _from_environment(path: str) -> tuple[str, str]:
    """Return a secret's place in the script, and the variable it is read from."""
    name, *keys = path.split(".")
    inside = "".join(f"[{key if key.isdigit() else repr(key)}]" for key in keys)
    return f"{name}{inside}", re.sub(r"\W", "_", "_".join(keys)).upper()


def _with_best_checkpoint(exported: _Exported, goal: Goal) -> dict[str, Any]:
    """Return the TrainingArguments; where the objective is the best evaluation, its checkpoint is kept and loaded."""
    found = exported.training
    if exported.study.objective.rule != "best":
        return {**found, "save_strategy": "no"}
    greater = goal.direction == "maximize"
    keep = {"load_best_model_at_end": True, "metric_for_best_model": goal.metric, "greater_is_better": greater}
    every = found.get("eval_steps") or found["logging_steps"]
    steps = {"save_steps": every} if found["eval_strategy"] == "steps" else {}
    return {**found, "save_strategy": found["eval_strategy"], **steps, "save_total_limit": 1, **keep}


def _card(exported: _Exported, hub: str = "") -> str:
    """Return the model card as Markdown; ``hub`` is the model's name there."""
    study, row, answer = exported.study, exported.row, Answer.read(exported.study, exported.rows)
    which = "The best" if not answer.several else "Pareto-optimal"
    ended = [other for other in exported.rows if other.ending.counts]
    base = study.task.options.get("model")
    public = isinstance(base, str) and not looks_local(base) and not (study.home / base).exists()
    source = study.task.options.get("data", study.task.path or "a task made in Python")
    prepared = study.place.data / digest(exported.task)
    counts = about(prepared)["rows"] if prepared.exists() else {}
    left_out = ALWAYS_REPORTED - {"eval_loss"} | {goal.metric for goal in study.objective.goals}
    text = _template("card.md.j2").render(
        study=study,
        hub=hub,
        costs=COSTS,
        fixed=hide(study.training),
        row=row,
        base_model=base if public else None,
        pipeline_tag=kind_class(study.task.type).pipeline_tag if study.task.type else None,
        baseline=answer.reference,
        versus=f": {answer.versus()}" if answer.chosen == row and answer.versus() else "",
        notes=answer.notes(),
        metrics={name: value for name, value in sorted(row.metrics.items()) if name not in left_out},
        which="Best mean over new seeds among the best" if answer.verdict else which,
        ended=f"{words.plural(len(ended), 'trial')} ({endings(ended)})",
        verdict=answer.verdict,
        test=answer.test,
        test_metrics=words.metrics(answer.test.metrics) if answer.test else "",
        seed=exported.seed,
        command=exported.command,
        source=source if isinstance(source, str) else json.dumps(source, default=str),
        counted=", ".join(f"{split} {count}" for split, count in counts.items()),
        digest=prepared.name,
        python=platform.python_version(),
    )
    return re.sub(r"\n{3,}", "\n\n", text)
