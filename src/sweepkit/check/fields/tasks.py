"""What a task accepts and reports: a built-in kind is asked itself, a user's class in a child process."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweepkit.check.fields.describe import Field, fields_of
from sweepkit.check.fields.facts import ask
from sweepkit.study.errors import InputError, nearest
from sweepkit.study.study import TaskSpec
from sweepkit.tasks.kinds import KINDS, kind_class
from sweepkit.tasks.load import task_file
from sweepkit.tasks.task import Task


@dataclass(frozen=True)
class TaskFacts:
    """What a task's class accepts and reports."""

    label: str
    """Its name in messages: the kind, or ``file.py:Class``."""
    kind: str | None
    """The built-in kind that it is, or builds on."""
    options: Mapping[str, Field]
    """Its options with what they accept."""
    closed: bool
    """Whether it has no other options."""
    model_names: frozenset[str] | None
    """The configuration fields its model_init takes; None where it takes any."""
    arguments_type: str
    """``module:Class`` of the arguments its Trainer takes."""
    folder: Path | None = None
    """The folder of the user's file."""
    overridden: frozenset[str] = frozenset()
    """Methods about metrics that the user's class defines."""
    own_report: frozenset[str] | None = None
    """What its own ``reported`` returns for the defaults of its options."""
    read: frozenset[str] = frozenset()
    """The options that its own ``reported`` read."""

    @property
    def built_in(self) -> type[Task]:
        """The class of sweepkit that it is, or builds on."""
        return kind_class(self.kind) if self.kind is not None else Task

    def reported(self, options: Mapping[str, Any], home: Path) -> frozenset[str] | None:
        """Return the ``eval_*`` names it reports with these options; None where only running it can tell."""
        if "reported" in self.overridden:
            return None if self.read & options.keys() else self.own_report
        metrics = options.get("metrics", self.options["metrics"].default)
        if not isinstance(metrics, (list, tuple)) or not all(isinstance(entry, (str, dict)) for entry in metrics):
            return None
        stand_in = self.built_in
        if self.overridden:
            members = {"__module__": __name__, **dict.fromkeys(self.overridden, _stand_in)}
            stand_in = type("StandIn", (self.built_in,), members)
        task = stand_in.model_construct(**{**options, "metrics": list(metrics)})
        task._home = home
        return task.reported()


def _stand_in(*_: Any, **__: Any) -> None:
    """Stand in for an overridden method; only whether it is overridden counts."""


def task_facts(spec: TaskSpec, home: Path) -> TaskFacts:
    """Return what a study's task accepts. Raises InputError for a missing kind, file or class, or a failing import."""
    if spec.type is not None:
        if spec.type not in KINDS:
            raise InputError(f"expected one of {', '.join(sorted(KINDS))}, got {spec.type}{nearest(spec.type, KINDS)}")
        return _facts(spec.type, None, describe_task(kind_class(spec.type)))
    file, name = task_file(spec.path or "", home)
    [found] = ask(("task", str(file), name))
    if isinstance(found, InputError):
        raise found
    return _facts(f"{file.name}:{name}", file.parent, found)


def _facts(label: str, folder: Path | None, plain: Mapping[str, Any]) -> TaskFacts:
    """Return the facts that :func:`describe_task` wrote."""
    sets = {name: None if plain[name] is None else frozenset(plain[name]) for name in _SETS}
    options = {name: Field.read(name, field) for name, field in plain["options"].items()}
    return TaskFacts(**{**plain, **sets, "label": label, "folder": folder, "options": options})


_SETS = ("model_names", "overridden", "own_report", "read")


def describe_task(cls: type[Task]) -> dict[str, Any]:
    """Return what a task's class accepts and reports, as JSON-compatible data."""
    classes = {kind_class(kind): kind for kind in KINDS}
    kind = next((classes[base] for base in cls.__mro__ if base in classes), None)
    base = Task if kind is None else kind_class(kind)
    names = ("reported", "compute_metrics", "decide", "trainer")
    overridden = [name for name in names if getattr(cls, name) is not getattr(base, name)]
    report, read = _own_report(cls) if "reported" in overridden else (None, [])
    field = cls.model_fields.get("arguments_type")
    arguments = field.default if field is not None else cls.arguments_type
    if not isinstance(arguments, str):
        raise InputError(f"arguments_type of {cls.__name__} must be text such as 'trl:DPOConfig', got {arguments!r}")
    parameters = inspect.signature(cls.model_init).parameters
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return {
        "kind": kind,
        "options": {name: field.plain() for name, field in fields_of(cls).items()},
        "closed": cls.model_config.get("extra") == "forbid",
        "model_names": None if takes_any else list(parameters)[1:],
        "arguments_type": arguments,
        "overridden": overridden,
        "own_report": report,
        "read": read,
    }


def _own_report(cls: type[Task]) -> tuple[list[str] | None, list[str]]:
    """Return what a user's ``reported`` returns for the options' defaults, and the options that it reads."""
    read: list[str] = []

    class Recording(cls):  # type: ignore[valid-type,misc]  # the user's class
        def __getattribute__(self, name: str) -> Any:
            if name in cls.model_fields:
                read.append(name)
            return super().__getattribute__(name)

    try:
        found = Recording.model_construct().reported()
    except Exception:  # noqa: BLE001  # a user's method may raise anything
        return None, read
    return None if found is None else [*found, "eval_loss"], read
