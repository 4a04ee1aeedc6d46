"""Hyperparameter studies for Hugging Face Trainer models, as a library.

This module knows the public names only; what they mean is loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweepkit.api import Study, load_study
    from sweepkit.api.trainer_search import hyperparameter_search
    from sweepkit.driver.run import run
    from sweepkit.study.space import Choice, Expression, Float, Int
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
    "Choice": "sweepkit.study.space",
    "Expression": "sweepkit.study.space",
    "Float": "sweepkit.study.space",
    "Int": "sweepkit.study.space",
    "Study": "sweepkit.api",
    "Task": "sweepkit.tasks",
    "hyperparameter_search": "sweepkit.api.trainer_search",
    "load_study": "sweepkit.api",
    "run": "sweepkit.driver.run",
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
