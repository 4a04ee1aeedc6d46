"""The table of backends, read by check, schema, help and driver: a new backend is one more row.

A backend's class is imported when a study that uses it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import Any

from sweepkit.study.errors import MissingExtra


@dataclass(frozen=True)
class BackendKind:
    """One row of the table."""

    source: str
    """``module:Class``."""
    meaning: str
    here: bool = True
    """Whether trials run on this machine, forked from the study's warm process."""
    cluster: bool = False
    """Whether it accepts the keys ``address`` and ``path``."""
    needs: str = ""
    """Library it needs; also the name of the extra that installs it."""

    @property
    def installed(self) -> bool:
        """Whether the library it needs is installed; imports nothing."""
        return not self.needs or find_spec(self.needs) is not None

    def cls(self) -> Any:
        """Return its class. Raises MissingExtra if its library is not installed."""
        if not self.installed:
            raise MissingExtra(f"the {self.needs} backend", self.needs)
        return resolve_name(self.source)


BACKENDS: Mapping[str, BackendKind] = {
    "optuna": BackendKind("sweepkit.backends.local:LocalBackend", "this machine"),
    "ray": BackendKind(
        "sweepkit.backends.ray:RayBackend",
        "Ray Tune, one machine or a cluster",
        here=False,
        cluster=True,
        needs="ray",
    ),
}


def meanings() -> str:
    """Return the backends in one line, each with its meaning."""
    return ", ".join(f"{name} ({kind.meaning})" for name, kind in BACKENDS.items())


def backends_with(feature: str) -> str:
    """Return the backends whose row has this field set, for example ``ray`` or ``ray or slurm``."""
    return " or ".join(name for name, kind in BACKENDS.items() if getattr(kind, feature))
