"""Answers what :mod:`sweepkit.check.fields.facts` asks, in a process of its own that may import anything."""

from __future__ import annotations

import gc
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweepkit.check.fields.describe import Field, fields_of
from sweepkit.study import linux, modules
from sweepkit.study.errors import InputError


def main() -> None:
    """Answer the questions in standard input; what the imported code prints goes to standard error.

    ``sys.argv[2]`` is the asking process, with which this one ends.
    """
    linux.die_with_parent()
    if os.getppid() != int(sys.argv[2]):
        return
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.dont_write_bytecode = True
    gc.disable()  # nothing that is imported is garbage, and looking for it takes a quarter of the time
    found = [answer(*question) for question in json.load(sys.stdin)]
    json.dump(found, answers)
    answers.close()
    os._exit(0)  # threads and exit handlers of what was imported do not matter


def answer(kind: str, *arguments: Any) -> dict[str, Any]:
    """Return the facts and the files they depend on, or the error."""
    try:
        facts = _QUESTIONS[kind](*arguments)
        return {"facts": facts, "files": modules.own_files(ours="tasks" if kind == "task" else "none of it")}
    except InputError as error:
        return {"error": str(error)}
    except BaseException as error:  # noqa: BLE001  # what is imported may raise anything, SystemExit included
        return {"error": "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]}


def _arguments(path: str, home: str | None, *_: str) -> dict[str, Any]:
    from sweepkit.tasks.load import arguments_class

    if home is not None and home not in sys.path:
        sys.path.insert(0, home)  # as importing the task's file does
    return _plain(fields_of(arguments_class(path)))


def _adapters() -> dict[str, Any]:
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    known = PEFT_TYPE_TO_CONFIG_MAPPING.items()
    return {method.value: [cls.__name__, _plain(fields_of(cls))] for method, cls in known}


def _configuration(model_type: str) -> dict[str, Any] | None:
    from transformers import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        return None
    cls = CONFIG_MAPPING[model_type]
    fields = fields_of(cls)
    for name, value in inspect.getmembers_static(cls, lambda member: isinstance(member, property)):
        if value.fset is not None and not name.startswith("_"):
            fields.setdefault(name, Field(name))
    for alias, name in getattr(cls, "attribute_map", {}).items():
        target = fields.get(name, Field(name))
        fields.setdefault(alias, replace(target, name=alias, required=False))
    return _plain(fields)


def _task(file: str, name: str) -> dict[str, Any]:
    from sweepkit.check.fields.tasks import describe_task
    from sweepkit.tasks.load import class_in

    return describe_task(class_in(Path(file), name))


_QUESTIONS: Mapping[str, Callable[..., Any]] = {
    "arguments": _arguments,
    "adapters": _adapters,
    "configuration": _configuration,
    "task": _task,
}


def _plain(fields: Mapping[str, Field]) -> dict[str, Any]:
    return {name: field.plain() for name, field in fields.items()}
