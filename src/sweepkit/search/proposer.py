"""Whole configurations: drawn by a sampler, picked by hand, or the baseline. Knows no storage and no budget.

A sampler is asked with the study's own space, not with what Optuna infers from earlier trials, and branch by branch where
parameters are conditional; so a space may become wider between two runs, and one odd trial does not blind a sampler.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from sweepkit.search.samplers import Grid, distribution, knowingly
from sweepkit.study.configurations import Configuration, Configurations
from sweepkit.study.parameters import Choice, Domain, Scalar
from sweepkit.study.samplers import Together
from sweepkit.study.space import Dimension, axes
from sweepkit.study.study import StudyData


@dataclass
class Draw:
    """What one drawing asks a sampler, and what it has got so far."""

    sampler: BaseSampler
    study: optuna.Study
    trial: FrozenTrial
    drawn: dict[str, Any] = field(default_factory=dict)


class Proposer:
    """Makes configurations of one study; ``known`` are fixed values and consumers' defaults by name."""

    def __init__(self, study: StudyData, known: Mapping[str, Any]) -> None:
        self._study = study
        self._axes = axes(study.space)
        self.distributions: dict[str, BaseDistribution] = {
            dimension.key: distribution(dimension.parameter) for dimension in self._axes.values()
        }
        self.configurations = Configurations(study, known)

    def sample(
        self, sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial, fixed: Mapping[str, Any]
    ) -> Configuration | None:
        """Return a configuration as the sampler wants it; None when it has no more, or this one breaks a constraint."""
        draw_now = Draw(sampler, study, trial)
        trial.params, trial.distributions = {}, {}
        with knowingly():
            if isinstance(sampler, Grid):
                draw_now.drawn = sampler.sample_relative(study, trial, {})
                if not draw_now.drawn:
                    return None
            return self.configurations.answered(lambda dimension: self._ask(draw_now, dimension), fixed)

    def _ask(self, now: Draw, dimension: Dimension) -> Scalar:
        domain = self.distributions[dimension.key]
        if domain.single():
            return dimension.parameter.at(0)
        if dimension.key not in now.drawn:
            together = {other.key: self.distributions[other.key] for other in self._together(dimension)}
            wanted = {key: d for key, d in together.items() if key not in now.drawn and not d.single()}
            if dimension.key in wanted:
                now.drawn |= now.sampler.sample_relative(now.study, now.trial, wanted)
        if dimension.key not in now.drawn:
            now.drawn[dimension.key] = now.sampler.sample_independent(now.study, now.trial, dimension.key, domain)
        answer = _plain(dimension.parameter, now.drawn[dimension.key])
        # As with Optuna's own suggestions: what is drawn next may depend on what was drawn before.
        now.trial.params[dimension.key], now.trial.distributions[dimension.key] = answer, domain
        return answer

    def _together(self, dimension: Dimension) -> Iterator[Dimension]:
        """Yield the dimensions that the study's sampler draws together with this one."""
        together = self._study.sampler.kind.draws_together(self._study.sampler.options)
        for other in self._axes.values():
            free = not (other.conditions or dimension.conditions)
            if (
                together is Together.everything
                or (together is Together.branch and other.conditions == dimension.conditions)
                or (together is Together.unconditional and free)
                or (together is Together.numbers and free and not isinstance(other.parameter, Choice))
            ):
                yield other


def _plain(domain: Domain, answer: Any) -> Scalar:
    """Return a sampler's answer as a label of the domain, without numpy's types."""
    return domain.labels[domain.labels.index(answer)] if isinstance(domain, Choice) else domain.label(answer)
