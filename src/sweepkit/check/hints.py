"""Guesses what was meant by a key or a value that a study file does not know, in the words of other tools."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from sweepkit.check.fields.arguments import SHORTHANDS
from sweepkit.check.fields.installed import read_installed
from sweepkit.check.wandb_parameters import Fixed, Multiples, convert
from sweepkit.check.yaml import key_text
from sweepkit.study import messages, words
from sweepkit.study.parameters import Choice
from sweepkit.study.study import StudyData
from sweepkit.tasks.kinds import KINDS, kind_class

_KEYS: Mapping[str, str] = {
    **dict.fromkeys(("n_trials", "num_trials", "max_trials", "num_samples", "run_cap"), "budget.trials"),
    **dict.fromkeys(("search_space", "parameters", "params", "hyperparameters", "hp_space"), "space"),
    **dict.fromkeys(("args", "training_args", "training_arguments"), "training"),
    **dict.fromkeys(("timeout", "max_hours", "time_budget"), "budget.hours"),
    **dict.fromkeys(("mode", "goal"), "objective.direction"),
    **dict.fromkeys(("search_alg", "algorithm", "method"), "sampler"),
    **dict.fromkeys(("scheduler", "early_terminate", "early_stopping"), "pruner"),
    **dict.fromkeys(("dataset", "data_files"), "task.data"),
    **dict.fromkeys(("n_jobs", "jobs", "workers", "max_concurrent_trials"), "backend.parallel"),
    **dict.fromkeys(("gpus", "resources_per_trial"), "backend.gpus_per_trial"),
    "seed": "training.seed or sampler.seed",
}
"""What other tools call a key → the key here."""
_VALUES: Mapping[str, Mapping[str, str]] = {
    "sampler": {
        **dict.fromkeys(("bayes", "bayesian", "bo", "gaussian"), "gp or tpe"),
        **dict.fromkeys(("hyperopt", "optuna", "default"), "tpe"),
        **dict.fromkeys(("sobol", "halton"), "qmc"),
        **dict.fromkeys(("genetic", "evolution", "evolutionary"), "nsga2 or cmaes"),
    },
    "pruner": {
        **dict.fromkeys(("sha", "successive_halving", "successivehalving"), "asha"),
        **dict.fromkeys(("early_stopping", "earlystopping"), "patient"),
        **dict.fromkeys(("nop", "null", "false", "off"), "none"),
        "bohb": "hyperband",
    },
    "backend": {**dict.fromkeys(("local", "joblib", "process", "multiprocessing"), "optuna"), "raytune": "ray"},
}
"""Section → what other tools call a type → the type here."""
_PARAMETER: Mapping[str, str] = {
    **dict.fromkeys(("min", "lower", "start", "from"), "low"),
    **dict.fromkeys(("max", "upper", "end", "stop", "to"), "high"),
    **dict.fromkeys(("values", "options", "categories", "value"), "choices"),
    **dict.fromkeys(("q", "step_size"), "step"),
    **dict.fromkeys(("distribution", "scale", "log_scale"), "log"),
}
"""What other tools call a key of a parameter → the key here."""
WAYS = ("low", "high", "choices", "expression")


def suggest(keys: Sequence[str | int], error: ErrorDetails) -> str:
    """Return ``"; did you mean X?"`` or what to write for an unknown key or a wrong value; empty without a guess."""
    value, head = error["input"], str(keys[0]) if keys else ""
    if error["type"] == "extra_forbidden":
        home, _, name = (path := elsewhere(keys, value)).rpartition(".")
        return _question(name if home == key_text(tuple(keys[:-1])) else path)
    if not isinstance(value, str) or len(value) > 50:
        return _section(head, value) if len(keys) == 1 else ""
    known = _VALUES.get(head, {}).get(value.lower().replace("-", "_"), "")
    if keys[1:] == ("type",):
        return _question(known)
    return _section(head, known.partition(" ")[0] or value) if len(keys) == 1 else ""


def _question(name: str) -> str:
    return f"; did you mean {name}?" if name else ""


def _section(name: str, value: Any) -> str:
    """Return how a section is written whose value was given instead."""
    if name in ("sampler", "pruner", "backend", "task") and isinstance(value, str):
        return f"; write {name}: {{{'path' if '.py' in value else 'type'}: {value}}}"
    if name == "tracking" and isinstance(value, str):
        return f"; write tracking: {{uri: {value}}}"
    if name == "confirm" and isinstance(value, int):
        return f"; write confirm: {{seeds: {value}}}"
    if name == "objective" and isinstance(value, str):
        return f"; write objective: {{metric: {value}, direction: maximize}}"
    if name == "budget" and isinstance(value, int):
        return f"; write budget: {{trials: {value}}}"
    return ""


def elsewhere(keys: Sequence[str | int], value: Any) -> str:
    """Return the path that was meant by an unknown key; empty without a guess."""
    key, home = str(keys[-1]), key_text(tuple(keys[:-1]))
    if keys[0] == "space":
        near = [_PARAMETER.get(key) or next(iter(get_close_matches(key, _PARAMETER_KEYS, n=1)), "")]
        return f"{home}.{near[0]}" if near[0] else ""
    known: dict[str, str] = {}
    for path in (*_paths(StudyData), *(f"task.{option}" for option in _options())):
        known.setdefault(path.rpartition(".")[2], path)
    beside = messages.keys(messages.section(StudyData, keys[:-1]) or StudyData)
    if key in _KEYS and _KEYS[key] != home:
        return _KEYS[key]
    if key in known and key not in ("type", "path"):
        return known[key]
    if near := get_close_matches(key, beside, n=1):
        return f"{home}.{near[0]}".strip(".")
    name = SHORTHANDS.get(key, key)
    if name in read_installed().training:
        return f"{'space' if isinstance(value, dict) else 'training'}.{name}"
    near = get_close_matches(key, known, n=1, cutoff=0.75)
    return name if "." in name else known[near[0]] if near else ""


_PARAMETER_KEYS = ("low", "high", "step", "log", "choices", "expression", "role")


def _paths(model: type[BaseModel], home: str = "") -> Iterator[str]:
    for name in messages.keys(model):
        yield f"{home}{name}"
        if (inner := messages.section(model, [name])) is not None:
            yield from _paths(inner, f"{home}{name}.")


def _options() -> dict[str, None]:
    return {(field.alias or name): None for kind in KINDS for name, field in kind_class(kind).model_fields.items()}


def instead(entry: Any) -> str:
    """Return how to write a parameter that says what varies in another way, or where a constant belongs."""
    if isinstance(entry, list) and entry:
        return f"; write {{choices: {words.setting(entry, width=80)}}}"
    if isinstance(entry, str) and (call := re.fullmatch(r"(log_?)?uniform\(([^,]+),([^,]+)\)", entry.replace(" ", ""))):
        return f"; write {{low: {call[2]}, high: {call[3]}{', log: true' if call[1] else ''}}}"
    if not isinstance(entry, dict):
        return "; a fixed value belongs in training"
    try:
        domain = convert(entry).domain
    except ValueError:
        near = (_PARAMETER.get(str(key)) or next(iter(get_close_matches(str(key), WAYS, n=1)), "") for key in entry)
        return _question(next(filter(None, near), ""))
    if isinstance(domain, Fixed):
        return f"; a fixed value belongs in training: {words.setting(domain.value, width=80)}"
    if isinstance(domain, Choice):
        return f"; write {{choices: {words.setting(domain.choices, width=80)}}}"
    if isinstance(domain, Multiples):
        return f"; write low and high, without {', '.join(entry)}"
    step = f", step: {domain.step}" if domain.step not in (None, 1) else ""
    return f"; write {{low: {domain.low}, high: {domain.high}{', log: true' if domain.log else step}}}"
