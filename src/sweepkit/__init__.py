"""Hyperparameter studies for Hugging Face Trainer models: the public names, each loaded when it is first used."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":
    _SENTENCE = "sweepkit runs on Linux and macOS; on Windows, install and use it within WSL (wsl --install)"
    if {"sweep", "sweepkit"} & {Path(word).stem for word in sys.orig_argv[:3]}:
        sys.exit(_SENTENCE)  # the command, by either name or as python -m: no traceback
    raise ImportError(_SENTENCE)

if TYPE_CHECKING:
    from sweepkit.api import Study, load_study
    from sweepkit.api.trainer_search import hyperparameter_search
    from sweepkit.driver.run import run
    from sweepkit.study.errors import InputError, StudyFailed, StudyFileError, SweepError
    from sweepkit.study.parameters import Choice, Expression, Float, Int
    from sweepkit.tasks.task import Task

__all__ = [
    "Choice",
    "Expression",
    "Float",
    "InputError",
    "Int",
    "Study",
    "StudyFailed",
    "StudyFileError",
    "SweepError",
    "Task",
    "__version__",
    "hyperparameter_search",
    "load_study",
    "run",
]

_MODULES = {
    "Choice": "sweepkit.study.parameters",
    "Expression": "sweepkit.study.parameters",
    "Float": "sweepkit.study.parameters",
    "InputError": "sweepkit.study.errors",
    "Int": "sweepkit.study.parameters",
    "Study": "sweepkit.api",
    "StudyFailed": "sweepkit.study.errors",
    "StudyFileError": "sweepkit.study.errors",
    "SweepError": "sweepkit.study.errors",
    "Task": "sweepkit.tasks.task",
    "hyperparameter_search": "sweepkit.api.trainer_search",
    "load_study": "sweepkit.api",
    "run": "sweepkit.driver.run",
}

__version__: str


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562): ``import sweepkit`` loads no library."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("sweepkit")
    elif name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
