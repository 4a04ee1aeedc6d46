"""Ray Tune's distributions in our words."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ray.tune.search.sample import Categorical, Domain, LogUniform, Normal, Quantized, Uniform
from ray.tune.search.sample import Float as TuneFloat
from ray.tune.search.sample import Integer as TuneInteger

from sweepkit.study.errors import InputError
from sweepkit.study.parameters import Choice, Float, Int


def parameter(name: str, value: Any, *, whole: bool = False) -> Float | Int | Choice:
    """Return the parameter that a distribution, or a constant, stands for.

    ``whole``: what is named takes whole numbers only; transformers cuts the decimals off there, so that ``uniform(1, 40)``
    means 1 to 39. Raises InputError for what has no counterpart.
    """
    if isinstance(value, Categorical) and isinstance(value.get_sampler(), Uniform):
        return Choice(choices=[_plain(name, each) for each in value.categories])
    if isinstance(value, (TuneFloat, TuneInteger)):
        return _numbers(name, value, whole=whole)
    if isinstance(value, Domain):
        raise _refused(
            name, "sample_from", "suggest_* of the object that hp_space is called with, and compute from that"
        )
    return Choice(choices=[_plain(name, value)])


def _refused(name: str, what: str, instead: str) -> InputError:
    return InputError(f"hyperparameter_search: hp_space: {name}: {what} cannot be searched; use {instead}")


def _numbers(name: str, domain: TuneFloat | TuneInteger, *, whole: bool) -> Float | Int | Choice:
    sampler: Any = domain.get_sampler()  # type: ignore[no-untyped-call]  # Tune's own, without types
    step = None
    if isinstance(sampler, Quantized):
        sampler, step = sampler.get_sampler(), sampler.q
    log = isinstance(sampler, LogUniform)
    if isinstance(sampler, Normal):
        raise _refused(name, "randn", "uniform over the range that counts")
    if log and step not in (None, 1):
        raise _refused(
            name, "a logarithm in steps (qloguniform, qlograndint)", "choice with the steps, or leave them out"
        )
    low, high = domain.lower, domain.upper
    if isinstance(domain, TuneFloat) and not whole:
        return Float(low=float(low), high=float(high), log=log, step=step) if low < high else Choice(choices=[low])
    if step is None:
        low, high, step = math.floor(low), math.ceil(high) - 1, 1  # the upper end is left out, as by Tune
    elif step != int(step):
        raise InputError(f"hyperparameter_search: hp_space: {name}: takes whole numbers, got steps of {step}")
    else:
        step = int(step)
        low, high = math.ceil(low / step) * step, math.floor(high / step) * step
    return Int(low=low, high=high, step=step, log=log) if low < high else Choice(choices=[low])


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Mapping) and "grid_search" in value:
        raise _refused(name, "grid_search", "choice")
    if any(isinstance(part, Domain) or part == "grid_search" for part in _parts(value)):
        raise _refused(name, "a distribution inside of a value", "choice among whole values")
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"hyperparameter_search: hp_space: {name}: must be plain data, got {value!r}") from error
    return value


def _parts(value: Any) -> Iterator[Any]:
    yield value
    for part in [*value, *value.values()] if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _parts(part)
