"""Who takes which hyperparameter name of a study, and what it holds when the study says nothing. Runs no user code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from sweepkit.check.fields import UNKNOWN, Field
from sweepkit.check.fields.arguments import LORA_OWNED, REMOVED, RENAMED, lora_fields, training_fields
from sweepkit.check.fields.models import model_fields
from sweepkit.check.fields.modules import refresh
from sweepkit.check.fields.tasks import TaskSource, read_task
from sweepkit.study.errors import InputError, MissingExtra, Problem, nearest
from sweepkit.study.parameters import Choice
from sweepkit.study.space import visit
from sweepkit.study.study import StudyData
from sweepkit.tasks.arguments import SWEEPKIT_DEFAULTS, owned


@dataclass(frozen=True)
class Consumers:
    """The four namespaces of a study; ``None`` stands for one that cannot be read from here and takes any name."""

    training: Mapping[str, Field]
    model: Mapping[str, Field] | None
    lora: Mapping[str, Field] | None
    task: TaskSource | None

    def resolve(self, name: str) -> tuple[Field | None, str]:
        """Return (field, "") for a name that something takes, else (None, what is wrong with it)."""
        prefix, dot, leaf = name.partition(".")
        if not dot:
            return self._bare(name)
        if prefix == "model":
            return self._model(leaf)
        if prefix == "peft":
            return self._peft(leaf)
        if prefix == "task":
            return self._task(leaf)
        return None, f"names begin with model., peft. or task., or are TrainingArguments{nearest(name, self.names())}"

    def names(self) -> list[str]:
        """Return every full name that is known, those that sweepkit sets itself left out."""
        found = [name for name in self.training if owned(name) is None]
        found += [f"model.{name}" for name in self.model or ()]
        found += [f"peft.{name}" for name in self.lora or ()]
        return found + [f"task.{name}" for name in (self.task.options if self.task else ())]

    def is_free(self, name: str) -> bool:
        """Whether a bare name means nothing to anyone, not even to an older transformers: it may name a group."""
        taken = name in self.training or name in RENAMED or name in REMOVED or owned(name) is not None
        return "." not in name and not taken

    def resembles(self, name: str) -> str | None:
        """Return the known name that a group's name is so near to that it must be a slip of the pen."""
        found = get_close_matches(name, self.names(), n=1, cutoff=0.85)
        return found[0] if found else None

    def _bare(self, name: str) -> tuple[Field | None, str]:
        if reason := owned(name):
            return None, f"is set by sweepkit; {reason}"
        if name in self.training:
            return self.training[name], ""
        if name in RENAMED:
            return None, f"transformers calls it {RENAMED[name]}"
        if name in REMOVED:
            return None, f"transformers has no such argument any more; {REMOVED[name]}"
        elsewhere = [full for full in self.names() if full.partition(".")[2] == name]
        hint = f"; did you mean {elsewhere[0]}?" if elsewhere else nearest(name, self.names())
        return None, f"is no TrainingArguments field{hint}"

    def _model(self, leaf: str) -> tuple[Field | None, str]:
        taken = self.task.model_names if self.task else None
        if self.task and taken is not None and leaf not in taken:
            listed = f"takes {', '.join(sorted(taken))} only" if taken else "takes no configuration"
            return None, f"model_init of {self.task.label} {listed}; give it **config to tune the model's configuration"
        if self.model is None:
            return Field(leaf), ""
        if leaf in self.model:
            return self.model[leaf], ""
        return None, f"the model's configuration has no field {leaf}{_near(leaf, self.model, 'model.')}"

    def _peft(self, leaf: str) -> tuple[Field | None, str]:
        if self.lora is None:
            return None, str(MissingExtra("LoRA", "peft"))
        if leaf in LORA_OWNED:
            return None, "is set by sweepkit; it follows from the task and its model"
        if leaf in self.lora:
            return self.lora[leaf], ""
        return None, f"LoraConfig has no field {leaf}{_near(leaf, self.lora, 'peft.')}"

    def _task(self, leaf: str) -> tuple[Field | None, str]:
        if self.task is None or (leaf not in self.task.options and not self.task.complete):
            return Field(leaf), ""
        if leaf in self.task.options:
            return self.task.options[leaf], ""
        return None, f"{self.task.label} has no option {leaf}{_near(leaf, self.task.options, 'task.')}"


def _near(leaf: str, known: Mapping[str, Field], prefix: str) -> str:
    hint = nearest(leaf, known)
    return hint.replace("did you mean ", f"did you mean {prefix}")


def consumers_of(study: StudyData) -> tuple[Consumers, list[Problem]]:
    """Return who takes a study's names, and what is wrong with its task's kind, file or class."""
    refresh()
    problems: list[Problem] = []
    task: TaskSource | None = None
    if study.task.type is not None or study.task.path is not None:
        try:
            task = read_task(study.task, study.home)
        except InputError as error:
            problems.append(Problem("task.type" if study.task.type is not None else "task.path", str(error)))
    training = training_fields(task.arguments_type) if task else training_fields()
    if not training and task:
        message = f"{task.label}: arguments_type names {task.arguments_type}, which is not to be found"
        problems.append(Problem("task", f"{message}; write module:Class of an installed package"))
        training = training_fields()
    return Consumers(training, _model_fields(study, task), lora_fields(), task), problems


def models_of(study: StudyData, task: TaskSource | None) -> list[tuple[str, Any]]:
    """Return (path in the study, model) for every model the task is told to use, by ``task.model``."""
    searched = [
        (each.path, model)
        for each in visit(study.space)
        if each.name == "task.model"
        for model in (each.parameter.choices if isinstance(each.parameter, Choice) else [each.parameter])
    ]
    if searched:
        return searched
    default = task.options["model"].default if task and "model" in task.options else None
    model = study.task.options.get("model", default)
    return [("task.model", model)] if isinstance(model, (str, Mapping)) else []


def _model_fields(study: StudyData, task: TaskSource | None) -> Mapping[str, Field] | None:
    found = [model_fields(model, study.home) for _, model in models_of(study, task)]
    if not found or any(fields is None for fields in found):
        return None
    first, *others = [fields for fields in found if fields is not None]
    return {name: field for name, field in first.items() if all(name in other for other in others)}


def known_values(study: StudyData, consumers: Consumers | None = None) -> dict[str, Any]:
    """Return name → value where the study fixes it or its consumer has a default that can be read without running it.

    What expressions and constraints may name, and what a baseline leaves out, is taken from here.
    """
    if consumers is None:
        consumers, _ = consumers_of(study)
    known: dict[str, Any] = {name: field.default for name, field in consumers.training.items()}
    known |= SWEEPKIT_DEFAULTS
    known |= {f"model.{name}": field.default for name, field in (consumers.model or {}).items()}
    known |= {f"peft.{name}": field.default for name, field in (consumers.lora or {}).items()}
    if consumers.task is not None:
        known |= {f"task.{name}": field.default for name, field in consumers.task.options.items()}
    known |= study.training
    known |= {f"task.{name}": value for name, value in study.task.options.items()}
    return {name: value for name, value in known.items() if value is not UNKNOWN}
