"""The tables of samplers and pruners, read by check, schema, help and search: a new one is one more row.

Everything else about a sampler or pruner is looked up in its class. Optuna is imported when a class is first needed.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from sweepkit.study.errors import FOREIGN, InputError, MissingExtra, nearest
from sweepkit.study.files import describe, first_line
from sweepkit.study.modules import import_file

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler


HUB = "optunahub:"
"""How the path of a sampler or pruner of OptunaHub begins."""


class Together(Enum):
    """Which dimensions a sampler draws jointly; it draws the others one by one."""

    nothing = "nothing"
    branch = "those under the same conditions"
    unconditional = "those outside of branches"
    numbers = "numeric ones outside of branches"
    everything = "everything"


def class_at(path: str, home: Path, base: str) -> type[Any]:
    """Return the class at ``file.py:Class``, relative to ``home``, at ``package.module:Class``, or of a package of OptunaHub.

    Raises InputError.
    """
    if path.startswith(HUB):
        return _hub_class(path, base)
    where, _, name = path.rpartition(":")
    if not where:
        raise InputError(f"expected file.py:Class or package.module:Class, got {path}")
    with redirect_stdout(sys.stderr):  # standard output is the command's
        if where.endswith(".py"):
            module = import_file(home / Path(where).expanduser())
        else:
            try:
                module = import_module(where)
            except FOREIGN as error:
                raise InputError(f"{path} cannot be imported: {first_line(describe(error))}") from error
    found = getattr(module, name, None)
    if found is None:
        raise InputError(f"{path}: there is no {name}{nearest(name, vars(module))}")
    if not (isinstance(found, type) and issubclass(found, resolve_name(base))):
        raise InputError(f"{path} is not a subclass of {base.replace(':', '.')}")
    return found


@cache
def _hub_class(path: str, base: str) -> type[Any]:
    """Return the class of ``optunahub:samplers/NAME``, which is downloaded once; ``NAME@REF`` is a branch, tag or commit.

    Where a package has several, ``:Class`` after it says which.
    """
    package, _, name = path.removeprefix(HUB).partition(":")
    package, _, ref = package.partition("@")
    if find_spec("optunahub") is None:
        raise MissingExtra(path, "optunahub")
    try:
        with redirect_stdout(sys.stderr):
            module = import_module("optunahub").load_module(package, **({"ref": ref} if ref else {}))
    except FOREIGN as error:
        raise InputError(f"{path} cannot be loaded: {first_line(describe(error))}") from error
    public = {each: getattr(module, each, None) for each in getattr(module, "__all__", ())}
    kinds = {each: cls for each, cls in public.items() if isinstance(cls, type) and issubclass(cls, resolve_name(base))}
    if name in kinds or (len(kinds) == 1 and not name):
        return kinds[name] if name else next(iter(kinds.values()))
    offered = ", ".join(kinds) or f"no subclass of {base.replace(':', '.')}"
    raise InputError(f"{path}: expected {HUB}{package}:CLASS; the package has {offered}")


@dataclass(frozen=True)
class Sampler:
    """One row of the table of samplers."""

    source: str | None
    """``module:Class``; None for the grid, which sweepkit enumerates itself."""
    meaning: str = ""
    home: Path | None = None
    """Where a class of a person's own is looked for; None for Optuna's."""
    together: Together = Together.nothing
    joint: str = ""
    """Boolean option that turns joint drawing off."""
    redraws: int = 50
    """Proposals that were tried before or break a constraint, until random ones take over."""
    sequence: bool = False
    """Whether all trials read one sequence of points, so that every trial's sampler gets the study's seed."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Options that sweepkit sets unless the study does."""
    window: int = 0
    """The default of its option ``window``: trials that it sees beside the best ones, the newest; 0 without such an option."""
    complete_only: bool = False
    """Whether it learns from trials that were trained to their end alone."""
    ignored: frozenset[str] = frozenset()
    """Options that are accepted but not passed on, as the search does the same for every sampler."""

    @property
    def enumerates(self) -> bool:
        """Whether it tries every combination once."""
        return self.source is None

    def cls(self) -> type[BaseSampler] | None:
        """Return the class, imported."""
        if self.source is None or self.home is None:
            return None if self.source is None else resolve_name(self.source)
        return class_at(self.source, self.home, "optuna.samplers:BaseSampler")

    def make(self, options: Mapping[str, Any], seed: int) -> BaseSampler:
        """Return a sampler. Raises ValueError or TypeError for options that its class rejects."""
        cls = self.cls()
        assert cls is not None, "the search enumerates combinations"
        given = {name: value for name, value in options.items() if name not in self.ignored}
        if self.window:
            given.pop(WINDOW, None)
        taken = signature(cls).parameters.values()
        seeded = any(each.name == "seed" or each.kind is each.VAR_KEYWORD for each in taken)
        with allow_experimental():
            return cls(**{**self.defaults, **given, **({"seed": seed} if seeded else {})})

    def draws_together(self, options: Mapping[str, Any]) -> Together:
        """Return which dimensions are drawn jointly with these options."""
        return Together.nothing if options.get(self.joint) is False else self.together


@dataclass(frozen=True)
class Pruner:
    """One row of the table of pruners."""

    source: str
    """``module:Class``."""
    meaning: str = ""
    home: Path | None = None
    """Where a class of a person's own is looked for; None for Optuna's."""
    advice: str = ""
    """Options with which it prunes later: ``{step}`` is the evaluation to get past, ``{next}`` the one after it."""
    meanings: Mapping[str, str] = field(default_factory=dict)
    """Option → what it means here, where Optuna's own words say something else, or little."""
    wraps: str = ""
    """Option for another pruner, written as its type or as a section of its own."""
    halves: bool = False
    """Whether most trials are stopped early."""
    pauses: bool = False
    """Whether it is freeze-thaw, which pauses trials and proposes the configurations of new ones itself."""
    promotes: bool = False
    """Whether it has the option ``promote``: trials then pause instead of being pruned, and the best of them go on."""
    scheduler: str = ""
    """``module:Class`` that decides how the members of a population continue, which copy each other's weights instead of
    being pruned; empty for no population."""
    needs: str = ""
    """Library that its scheduler needs; also the name of the extra that installs it."""

    @property
    def population(self) -> bool:
        """Whether trials train side by side as a population."""
        return bool(self.scheduler)

    def scheduler_cls(self) -> Any:
        """Return its scheduler's class. Raises MissingExtra where the library it needs is not installed."""
        if self.needs and find_spec(self.needs) is None:
            raise MissingExtra(self.meaning, self.needs)
        return resolve_name(self.scheduler)

    def later(self, step: int) -> str:
        """Return options with which it prunes only after evaluation ``step``; empty if there are none."""
        return f"pruner: {self.advice.format(step=step, next=step + 1)}" if self.advice else ""

    def cls(self) -> type[BasePruner]:
        """Return the class, imported."""
        found: type[BasePruner]
        if self.home is not None:
            found = class_at(self.source, self.home, "optuna.pruners:BasePruner")
        else:
            found = resolve_name(self.source)
        return found

    def make(self, options: Mapping[str, Any]) -> BasePruner:
        """Return a pruner. Raises ValueError or TypeError for options that its class rejects, KeyError for an unknown one."""
        given = {} if self.population else dict(options)
        if self.promotes:
            given.pop(PROMOTE, None)
        if self.wraps:
            inner = given.get(self.wraps)
            section = {"type": inner} if isinstance(inner, str) else dict(inner or {})
            kind = section.pop("type", "none")
            given[self.wraps] = None if inner is None else PRUNERS[kind].make(section)
        with allow_experimental():
            return self.cls()(**given)


WINDOW = "window"
"""Option of samplers that see the best trials and, of the others, the newest."""
PROMOTE = "promote"
"""Option of pruners that can promote."""
_QUIET = {"warn_independent_sampling": False}

SAMPLERS: Mapping[str, Sampler] = {
    "random": Sampler("optuna.samplers:RandomSampler"),
    "tpe": Sampler(
        "optuna.samplers:TPESampler",
        "with one metric it learns from the best 25 trials and as many of the newest others as its option window says, 1000",
        together=Together.branch,
        joint="multivariate",
        defaults={"multivariate": True},
        ignored=frozenset({"group"}),  # conditional parameters are always drawn branch by branch
        window=1000,
    ),
    "gp": Sampler(
        "optuna.samplers:GPSampler",
        together=Together.unconditional,
        redraws=3,
        complete_only=True,
        defaults=_QUIET,
    ),
    "cmaes": Sampler("optuna.samplers:CmaEsSampler", together=Together.numbers, complete_only=True, defaults=_QUIET),
    "qmc": Sampler(
        "optuna.samplers:QMCSampler",
        together=Together.everything,
        sequence=True,
        defaults={"scramble": True, **_QUIET},
    ),
    "grid": Sampler(None, "every combination once"),
    "nsga2": Sampler(
        "optuna.samplers:NSGAIISampler", "several objectives", together=Together.unconditional, complete_only=True
    ),
    "nsga3": Sampler(
        "optuna.samplers:NSGAIIISampler",
        "three or more objectives",
        together=Together.unconditional,
        complete_only=True,
    ),
}
"""Every sampler, by its name in a study file."""

PRUNERS: Mapping[str, Pruner] = {
    "none": Pruner("optuna.pruners:NopPruner"),
    "median": Pruner(
        "optuna.pruners:MedianPruner", advice="{{n_warmup_steps: {step}}}, or percentile with a lower percentile"
    ),
    "percentile": Pruner("optuna.pruners:PercentilePruner", advice="{{n_warmup_steps: {step}}}, or a lower percentile"),
    "asha": Pruner(
        "optuna.pruners:SuccessiveHalvingPruner",
        "successive halving",
        advice="{{min_resource: {next}}} or a smaller reduction_factor",
        meanings={
            "min_resource": "Evaluations before the first decision; auto: a tenth of a trial's, at least 1.",
            "reduction_factor": "The best 1/reduction_factor of the trials at each rung continue.",
            "min_early_stopping_rate": "Rungs that are left out at the beginning.",
        },
        promotes=True,
        halves=True,
    ),
    "hyperband": Pruner(
        "optuna.pruners:HyperbandPruner", advice="{{min_resource: {next}}} or a smaller reduction_factor", halves=True
    ),
    "threshold": Pruner("optuna.pruners:ThresholdPruner"),
    "patient": Pruner("optuna.pruners:PatientPruner", wraps="wrapped_pruner", advice="a larger patience"),
    "wilcoxon": Pruner("optuna.pruners:WilcoxonPruner", advice="a smaller p_threshold"),
    "freeze-thaw": Pruner(
        "optuna.pruners:NopPruner", "pauses trials and finishes the most promising ones", pauses=True
    ),
    "pbt": Pruner(
        "optuna.pruners:NopPruner",
        "population-based training",
        scheduler="sweepkit.backends.population:PopulationBasedTraining",
    ),
    "pb2": Pruner(
        "optuna.pruners:NopPruner",
        "population-based bandits",
        scheduler="sweepkit.backends.ray.population:TuneScheduler",
        needs="ray",
    ),
}
"""Every pruner, by its name in a study file. Options count evaluations."""


def list_names(table: Mapping[str, Sampler] | Mapping[str, Pruner]) -> str:
    """Return a table's names in one line, with the meanings of those that need one."""
    return ", ".join(f"{name} ({row.meaning})" if row.meaning else name for name, row in table.items())


def make_pruner(row: Pruner, options: Mapping[str, Any]) -> BasePruner:
    """Return a study's pruner. Raises InputError for options that its class rejects."""
    try:
        return row.make(options)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"pruner {row.source.rpartition(':')[2]}: {error}") from None


def first_rung(options: Mapping[str, Any], evaluations: int | None = None) -> int:
    """Return the first evaluation at which asha decides about trials of so many.

    ``min_resource: auto`` is a tenth of them, and 1 where they are unknown: curves that cross later mislead a decision at the
    first of many evaluations.

    >>> first_rung({"min_resource": 2, "reduction_factor": 3, "min_early_stopping_rate": 1})
    6
    >>> first_rung({}, 5), first_rung({}, 52)
    (1, 5)
    """
    power: int = int(options.get("reduction_factor", 4)) ** int(options.get("min_early_stopping_rate", 0))
    return _least(options, evaluations) * power


def resolve_auto(row: Pruner, options: Mapping[str, Any], evaluations: int | None) -> Mapping[str, Any]:
    """Return a pruner's options with asha's ``min_resource: auto`` as a number, where a trial's evaluations are known.

    Optuna's own ``auto`` is a hundredth of the first complete trial, which suits trials of thousands of steps.
    """
    if row is not PRUNERS["asha"] or evaluations is None:
        return options
    return {**options, "min_resource": _least(options, evaluations)}


def _least(options: Mapping[str, Any], evaluations: int | None) -> int:
    given = options.get("min_resource", "auto")
    return max(1, round((evaluations or 0) / 10)) if given == "auto" else int(given)


@contextmanager
def allow_experimental() -> Iterator[None]:
    """Suppress Optuna's warnings about experimental features."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
