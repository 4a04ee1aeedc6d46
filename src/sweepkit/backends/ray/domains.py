"""Ray Tune's distributions in our words. Knows no study and no trial."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ray.tune.search.sample import Categorical, Domain, LogUniform, Quantized, Uniform
from ray.tune.search.sample import Float as TuneFloat
from ray.tune.search.sample import Integer as TuneInteger

from sweepkit.errors import InputError
from sweepkit.space import Choice, Float, Int


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
        raise InputError(f"hyperparameter_search: hp_space: {name}: {type(value).__name__} cannot be searched; {_RULE}")
    return Choice(choices=[_plain(name, value)])


_RULE = "use uniform, loguniform, quniform, choice, randint, qrandint, lograndint or a constant"


def _numbers(name: str, domain: TuneFloat | TuneInteger, *, whole: bool) -> Float | Int | Choice:
    sampler: Any = domain.get_sampler()  # type: ignore[no-untyped-call]  # Tune's own, without types
    step = None
    if isinstance(sampler, Quantized):
        sampler, step = sampler.get_sampler(), sampler.q
    log = isinstance(sampler, LogUniform)
    if not isinstance(sampler, (Uniform, LogUniform)) or (log and step not in (None, 1)):
        kind = f"{'quantized ' if step else ''}{type(sampler).__name__.strip('_')}"
        raise InputError(f"hyperparameter_search: hp_space: {name}: {kind} cannot be searched; {_RULE}")
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
    if any(isinstance(part, Domain) or part == "grid_search" for part in _parts(value)):
        raise InputError(
            f"hyperparameter_search: hp_space: {name}: distributions inside of a value and grid_search cannot be searched; "
            f"{_RULE}"
        )
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"hyperparameter_search: hp_space: {name}: must be plain data, got {value!r}") from error
    return value


def _parts(value: Any) -> Iterator[Any]:
    yield value
    for part in [*value, *value.values()] if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _parts(part)
