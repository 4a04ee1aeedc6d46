"""Hyperparameter studies for Hugging Face Trainer models, as a library.

This module knows the public names only; what they mean is loaded when they are first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweepkit.notebook import Study, load_study
    from sweepkit.run import run
    from sweepkit.search_api import hyperparameter_search
    from sweepkit.space import Choice, Expression, Float, Int
    from sweepkit.tasks import Task

__all__ = [
    "Choice",
    "Expression",
    "Float",
    "Int",
    "Study",
    "Task",
    "__version__",
    "hyperparameter_search",
    "load_study",
    "run",
]

_HOMES = {
    "Choice": "sweepkit.space",
    "Expression": "sweepkit.space",
    "Float": "sweepkit.space",
    "Int": "sweepkit.space",
    "Study": "sweepkit.notebook",
    "Task": "sweepkit.tasks",
    "hyperparameter_search": "sweepkit.search_api",
    "load_study": "sweepkit.notebook",
    "run": "sweepkit.run",
}

__version__: str


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562), so that ``import sweepkit`` costs nothing."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("sweepkit")
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps ``sweepkit.run`` the function: importing the module of the same name would put that in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
