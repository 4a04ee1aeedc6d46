"""The backends a study file can name. A new one is a new line here: check, schema, help and driver read this table.

A class is imported when a study that names it runs.
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
    """Whether the keys ``address`` and ``path`` belong to it."""
    scheduler: str = ""
    """``module:Class`` that decides where the members of a population meet; empty: it trains no populations."""
    needs: str = ""
    """The library it needs, which is also the name of the extra that installs it."""

    @property
    def installed(self) -> bool:
        """Whether the library it needs is there; imports nothing."""
        return not self.needs or find_spec(self.needs) is not None

    def cls(self) -> Any:
        """Return its class. Raises MissingExtra where its library is missing."""
        return self._load(self.source)

    def scheduler_cls(self) -> Any:
        """Return its scheduler's class. Raises MissingExtra where its library is missing."""
        return self._load(self.scheduler)

    def _load(self, source: str) -> Any:
        if not self.installed:
            raise MissingExtra(f"the {self.needs} backend", self.needs)
        return resolve_name(source)


BACKENDS: Mapping[str, BackendKind] = {
    "optuna": BackendKind("sweepkit.backends.local:LocalBackend", "this machine"),
    "ray": BackendKind(
        "sweepkit.backends.ray:RayBackend",
        "Ray Tune, one machine or a cluster",
        here=False,
        cluster=True,
        scheduler="sweepkit.backends.ray.population:TuneScheduler",
        needs="ray",
    ),
}


def meanings() -> str:
    """Return the backends in one line, each with its meaning."""
    return ", ".join(f"{name} ({kind.meaning})" for name, kind in BACKENDS.items())


def backends_with(feature: str) -> str:
    """Return the names of the backends whose row has this field set, as one says it: ``ray`` or ``ray or slurm``."""
    return " or ".join(name for name, kind in BACKENDS.items() if getattr(kind, feature))
