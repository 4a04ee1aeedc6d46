"""The fields of the installed TrainingArguments, PEFT methods and model configurations."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from sweepkit.check.fields.arguments import PEFT_OWNED
from sweepkit.check.fields.describe import UNKNOWN, Field
from sweepkit.check.fields.facts import Question, ask
from sweepkit.study.errors import InputError
from sweepkit.tasks.adapters import DEFAULT
from sweepkit.tasks.references import package_folder

TRAINING_ARGUMENTS = "transformers.training_args:TrainingArguments"
"""The plain Trainer's arguments, as ``module:Class``."""


@dataclass(frozen=True)
class Adapter:
    """A method of PEFT."""

    label: str
    """The name of its configuration's class."""
    fields: Mapping[str, Field]


@dataclass(frozen=True)
class Installed:
    """What the installed libraries accept."""

    training: Mapping[str, Field]
    """The arguments of the Trainer; the plain Trainer's where the task's own cannot be imported."""
    adapters: Mapping[str, Adapter] | None
    """PEFT's methods by ``peft.type``; None where peft is not installed."""
    configurations: Mapping[str, Mapping[str, Field] | None] = field(default_factory=dict)
    """Model type → fields of its configuration; None for a type that transformers does not know."""
    problem: str = ""
    """Why the task's own arguments cannot be imported."""


def read_installed(
    model_types: Collection[str] = (), arguments_type: str = TRAINING_ARGUMENTS, home: Path | None = None
) -> Installed:
    """Return what the installed libraries accept; ``home`` is the folder of the task's file."""
    arguments, plain = _arguments(arguments_type, home), _arguments(TRAINING_ARGUMENTS, None)
    questions = [
        *dict.fromkeys((arguments, plain)),
        ("adapters",),
        *(("configuration", model_type) for model_type in dict.fromkeys(model_types)),
    ]
    if package_folder("peft") is None:
        questions.remove(("adapters",))
    found = dict(zip(questions, ask(*questions), strict=True))
    problem = found[arguments]
    return Installed(
        _fields(found[plain] if isinstance(problem, InputError) else problem) or {},
        _adapters(found.get(("adapters",))),
        {question[1]: _fields(facts) for question, facts in found.items() if question[0] == "configuration"},
        str(problem) if isinstance(problem, InputError) else "",
    )


def peft_fields(adapters: Mapping[str, Adapter], methods: Collection[str]) -> dict[str, Field]:
    """Return ``type``, and the fields of these methods with what they accept where that is the same."""
    found = {"type": Field("type", frozenset({"str"}), DEFAULT, tuple(adapters))}
    used = [adapters[method].fields for method in methods if method in adapters]
    for name, each in ((name, each) for fields in used for name, each in fields.items()):
        old = found.setdefault(name, each)
        if (old.kinds, old.choices) != (each.kinds, each.choices):
            found[name] = Field(name)
        elif old.default != each.default:
            found[name] = replace(old, default=UNKNOWN)
    return found


def _adapters(facts: Any) -> dict[str, Adapter] | None:
    if facts is None:
        return None
    known = {} if isinstance(facts, InputError) else facts
    return {method: Adapter(label, _fields(plain, PEFT_OWNED) or {}) for method, (label, plain) in known.items()}


def _arguments(arguments_type: str, home: Path | None) -> Question:
    module = arguments_type.partition(":")[0].partition(".")[0]
    path = None if home is None or arguments_type == TRAINING_ARGUMENTS else str(home)
    spec = PathFinder.find_spec(module, [*([path] if path else []), *sys.path])
    return ("arguments", arguments_type, path, spec.origin if spec else None)


def _fields(facts: Any, without: Collection[str] = ()) -> dict[str, Field] | None:
    if facts is None or isinstance(facts, InputError):
        return None
    return {name: Field.read(name, plain) for name, plain in facts.items() if name not in without}
