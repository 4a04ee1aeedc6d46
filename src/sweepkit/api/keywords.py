"""The keywords of the Trainer's own search, those of Optuna's ``create_study`` and ``optimize`` and of Ray's ``tune.run``.

What has a meaning here becomes part of the study; the rest is answered with what to write instead.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optuna.pruners import BasePruner, MedianPruner
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage

from sweepkit.study.errors import InputError
from sweepkit.study.paths import LONGEST_NAME, NAMING, is_name

_RENAMED = {"name": "study_name", "time_budget_s": "timeout", "max_concurrent_trials": "n_jobs", "pruner": "scheduler"}
"""Keywords of one of the two with the other one's name for the same."""
_TAKEN = {"study_name", "storage", "timeout", "n_jobs", "sampler", "scheduler", "search_alg", "load_if_exists"}
_TAKEN |= {"directions", "catch", "resources_per_trial", "keep_checkpoints_num", "max_failures"}
_PROCESS, _KEPT = "each trial has its own process", "the best trials' models are kept: keep_checkpoints_num"
_IDLE = {
    "gc_after_trial": _PROCESS,
    "reuse_actors": _PROCESS,
    "raise_on_failed_trial": "a failing trial ends alone",
    "log_to_file": "each trial's folder has its output",
    "progress_reporter": "progress is what watch= shows",
    "verbose": "progress is what watch= shows",
    "show_progress_bar": "progress is what watch= shows",
    "resume": "the same call with a name resumes",
    "checkpoint_freq": _KEPT,
    "checkpoint_at_end": _KEPT,
    "checkpoint_score_attr": _KEPT,
}
"""Keywords without an effect here → why it is not needed."""
_INSTEAD = {
    "callbacks": "watch, a sweepkit.Watcher that is told of each event and trial",
    "num_samples": "n_trials",
    "config": "hp_space",
    "metric": "compute_objective",
    "mode": "direction",
    "trial_name_creator": "hp_name",
    "trial_dirname_creator": "hp_name",
    "stop": "num_train_epochs or max_steps of the Trainer's arguments, or a pruner",
    "local_dir": "the current folder: runs go to runs/ of its project",
    "storage_path": "the current folder: runs go to runs/ of its project",
    "restore": "study_name: the same call resumes",
    "resume_config": "study_name: the same call resumes",
    "fail_fast": "a study file, which stops after three failures of the same cause",
    "checkpoint_config": "keep_checkpoints_num",
    "sweep_id": "`sweep import` for a W&B sweep file",
    "project": "study_name",
    "entity": "study_name",
}
"""Keywords that have no meaning here → what to use in their place."""


class Keywords:
    """The keywords of one call, under Optuna's names where both have one (``scheduler`` stands for pruners, too).

    Raises InputError for the first one that cannot be met.
    """

    def __init__(self, given: Mapping[str, Any], directions: Sequence[str]) -> None:
        self._given: dict[str, Any] = {}
        for name, value in given.items():
            known = _RENAMED.get(name, name)
            if value is not None and known in self._given:
                raise InputError(f"hyperparameter_search: {known} is given twice, once as {name}; leave one out")
            if name == "pruner" and not isinstance(value, (BasePruner, type(None))):
                raise InputError(f"hyperparameter_search: pruner must be one of Optuna's pruners, got {value!r}")
            if value is not None:
                self._given[known] = value
        own = self._given.pop("directions", None)
        self.directions = list(directions if own is None else own)
        self._searcher()
        for problem in self._problems():
            raise InputError(f"hyperparameter_search: {problem}")
        if idle := [f"{name} ({_IDLE[name]})" for name in self._given if name in _IDLE and name != "gc_after_trial"]:
            warnings.warn(f"hyperparameter_search: without effect here: {', '.join(idle)}", stacklevel=4)

    @property
    def sampler(self) -> BaseSampler | None:
        """The sampler asked for."""
        return self._given.get("sampler")

    def pruner(self, backend: str) -> BasePruner | None:
        """Return the pruner asked for, or Optuna's default where the Trainer's own method would prune."""
        found = self._given.get("scheduler")
        if isinstance(found, BasePruner):
            return found
        return MedianPruner() if found is None and backend == "optuna" and len(self.directions) == 1 else None

    @property
    def scheduler(self) -> Any:
        """Ray Tune's scheduler, where it is one."""
        found = self._given.get("scheduler")
        return None if isinstance(found, BasePruner) else found

    @property
    def new(self) -> bool:
        """Whether the study must not exist yet."""
        return self._given.get("load_if_exists") is False

    @property
    def name(self) -> str | None:
        """The study's name."""
        return self._given.get("study_name")

    def sections(self, n_trials: int, backend: str) -> dict[str, Any]:
        """Return the sections of the study that the keywords set."""
        given, jobs, timeout = self._given, self._given.get("n_jobs", -1), self._given.get("timeout")
        slots: dict[str, Any] = {} if jobs == -1 else {"parallel": jobs}
        for key, value in given.get("resources_per_trial", {}).items():
            slots[f"{key}s_per_trial"] = value
        storage, keep = given.get("storage"), given.get("keep_checkpoints_num")
        return {
            "budget": {"trials": n_trials, **({"hours": _seconds(timeout) / 3600} if timeout else {})},
            "storage": storage.url if isinstance(storage, RDBStorage) else storage or "journal",
            "backend": {"type": backend, **slots},
            "retries": {"crash": given.get("max_failures", 0)},
            **({"checkpoints": {"keep": keep}} if keep else {}),
        }

    def _searcher(self) -> None:
        """Take sampler and limits out of Ray Tune's search algorithm."""
        found = self._given.pop("search_alg", None)
        if hasattr(found, "max_concurrent") and hasattr(found, "searcher"):
            self._given.setdefault("n_jobs", found.max_concurrent)
            found = found.searcher
        if found is not None:
            from sweepkit.backends.ray.schedulers import sampler_of

            self._given["sampler"] = sampler_of(found)

    def _problems(self) -> Iterator[str]:
        given = self._given
        for name in given.keys() - _IDLE.keys() - _TAKEN:
            known = f"; expected {', '.join(sorted({*_TAKEN, *_RENAMED}))}"
            yield f"{name} has no meaning here; use {_INSTEAD[name]}" if name in _INSTEAD else f"unknown {name}{known}"
        for direction in self.directions or [""]:
            if direction not in ("minimize", "maximize"):
                yield f"direction must be minimize or maximize, or a list of these, got {direction!r}"
        for name, least in (("n_jobs", 1), ("keep_checkpoints_num", 1), ("max_failures", 0)):
            value = given.get(name, least)
            if not (type(value) is int and value >= least) and (name, value) != ("n_jobs", -1):
                yield f"{name} must be a whole number of at least {least}, got {value!r}"
        resources = given.get("resources_per_trial", {})
        if not isinstance(resources, Mapping) or resources.keys() - {"cpu", "gpu"}:
            yield f"resources_per_trial must be a dict with cpu and gpu, got {resources!r}"
        if given.get("scheduler") is not None and len(self.directions) > 1:
            yield "pruner: Optuna prunes with one direction only; leave it out"
        yield from self._wrong_values()

    def _wrong_values(self) -> Iterator[str]:
        given = self._given
        timeout, name, storage = given.get("timeout"), given.get("study_name"), given.get("storage")
        if timeout is not None and not _seconds(timeout) > 0:
            yield f"timeout must be a number of seconds above 0, got {timeout!r}"
        if name is not None and not is_name(name):
            yield f"study_name names a folder: {NAMING}, at most {LONGEST_NAME}, got {name!r}"
        if not isinstance(storage, (str, RDBStorage, type(None))):
            yield (
                f"storage must be a URL such as sqlite:///studies.db, as other processes open it too, got "
                f"{type(storage).__name__}; without one the study has a journal in its folder"
            )
        caught = given.get("catch", Exception)
        if not {Exception, BaseException} & set(caught if isinstance(caught, tuple) else (caught,)):
            yield f"catch: a failing trial always ends alone; leave it out or pass Exception, got {caught!r}"


def _seconds(timeout: Any) -> float:
    return float(timeout.total_seconds() if hasattr(timeout, "total_seconds") else timeout)
