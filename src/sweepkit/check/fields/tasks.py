"""Reads what a task accepts and reports from the source of its class, without running user code."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sweepkit.check.fields.arguments import TRAINING_ARGUMENTS
from sweepkit.check.fields.classes import Class, Field, read_class, signature
from sweepkit.check.fields.modules import literal, parse
from sweepkit.study.errors import InputError, nearest
from sweepkit.study.study import TaskSpec
from sweepkit.tasks.kinds import KINDS, kind_class
from sweepkit.tasks.references import package_folder
from sweepkit.tasks.task import Task


@dataclass(frozen=True)
class TaskSource:
    """A task's class as its source defines it."""

    label: str
    """Its name in messages: the kind, or ``file.py:Class``."""
    source: Class

    @property
    def options(self) -> Mapping[str, Field]:
        """Its options with what they accept."""
        return self.source.fields

    @cached_property
    def complete(self) -> bool:
        """Whether every base class could be read, so that an unknown option is an error."""
        return set(self.source.unread) <= {"BaseModel", "object"}

    @cached_property
    def model_names(self) -> frozenset[str] | None:
        """The configuration fields its model_init takes; None where it takes any."""
        method = self.source.methods.get("model_init")
        if method is None or method.node.args.kwarg is not None:
            return None
        return frozenset(signature(method))

    @property
    def arguments_type(self) -> str:
        """``module:Class`` of the arguments its Trainer takes."""
        return str(self.source.constants.get("arguments_type", TRAINING_ARGUMENTS))

    @cached_property
    def own_methods(self) -> frozenset[str]:
        """Methods that the user's own file defines."""
        return frozenset(name for name, method in self.source.methods.items() if _package() not in method.file.parents)

    @cached_property
    def built_in(self) -> type[Task]:
        """The class of sweepkit that it is, or builds on."""
        for name in (self.source.name, *self.source.bases):
            for kind, place in KINDS.items():
                if place.partition(":")[2] == name:
                    return kind_class(kind)
        return Task

    def reported(self, options: Mapping[str, Any]) -> frozenset[str] | None:
        """Return the ``eval_*`` names it reports with these options; None where only running it can tell."""
        if "reported" in self.own_methods:
            return _returned_names(self.source.methods["reported"].node)
        default = self.options["metrics"].default if "metrics" in self.options else []
        metrics = options.get("metrics", default)
        listed = isinstance(metrics, (list, tuple)) and all(isinstance(entry, (str, dict)) for entry in metrics)
        if not self.complete or not listed:
            return None
        overridden = dict.fromkeys({"compute_metrics", "trainer"} & self.own_methods, _stand_in)
        stand_in: type[Task] = type("StandIn", (self.built_in,), {"__module__": __name__, **overridden})
        return stand_in.model_construct(**{**options, "metrics": list(metrics)}).reported()


def _stand_in(*_: Any, **__: Any) -> None:
    """Stand in for an overridden method; only whether it is overridden counts."""


def _package() -> Path:
    folder = package_folder("sweepkit")
    assert folder is not None
    return folder


def _returned_names(method: ast.FunctionDef) -> frozenset[str] | None:
    returns = [node for node in ast.walk(method) if isinstance(node, ast.Return)]
    value = returns[0].value if len(returns) == 1 else None
    if isinstance(value, ast.Call) and ast.unparse(value.func) in ("frozenset", "set") and len(value.args) == 1:
        value = value.args[0]
    found = literal(value)
    if not isinstance(found, (set, list, tuple)) or not all(isinstance(name, str) for name in found):
        return None
    return frozenset(found) | {"eval_loss"}


def read_task(spec: TaskSpec, home: Path) -> TaskSource:
    """Return a task's source. Raises InputError for a missing kind, file or class."""
    if spec.type is not None:
        if spec.type not in KINDS:
            listed = ", ".join(sorted(KINDS))
            raise InputError(f"expected one of {listed}, got {spec.type}{nearest(spec.type, KINDS)}")
        module, _, name = KINDS[spec.type].partition(":")
        built_in = read_class(_package().joinpath(*module.split(".")[1:]).with_suffix(".py"), name)
        if built_in is None:
            raise InputError(f"the built-in kind {spec.type} cannot be read")
        return TaskSource(spec.type, built_in)
    text = spec.path or ""
    where, _, name = text.rpartition(":")
    if not where.endswith(".py") or not name.isidentifier():
        raise InputError(f"expected file.py:Class, got {text}")
    file = (home / Path(where).expanduser()).resolve()
    if not file.is_file():
        raise InputError(f"there is no file {where} (looked in {home})")
    try:
        module_body = parse(file).body
    except SyntaxError as error:
        raise InputError(f"{where} is not valid Python: line {error.lineno}: {error.msg}") from error
    found = read_class(file, name)
    if found is None:
        classes = [node.name for node in module_body if isinstance(node, ast.ClassDef)]
        listed = f"; its classes are {', '.join(classes)}" if classes else ""
        raise InputError(f"{where} has no class {name}{nearest(name, classes) or listed}")
    return TaskSource(f"{Path(where).name}:{name}", found)
