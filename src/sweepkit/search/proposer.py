"""Asks a sampler for whole configurations of a study's space.

The sampler gets the study's own space, branch by branch where parameters are conditional, not the space that Optuna would
infer from earlier trials. So the space may become wider between two runs, and one unusual trial does not disable joint
sampling.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from sweepkit.search.samplers import Grid, Nearby, distribution, quiet_optuna
from sweepkit.study.configurations import Configuration, Configurations
from sweepkit.study.parameters import Choice, Domain, Scalar
from sweepkit.study.samplers import Together
from sweepkit.study.space import Dimension, axes
from sweepkit.study.study import StudyData


@dataclass
class _Draw:
    """One configuration in the making: its sampler, and the labels drawn so far."""

    sampler: BaseSampler
    study: optuna.Study
    trial: FrozenTrial
    drawn: dict[str, Any] = field(default_factory=dict)


class Proposer:
    """Proposes configurations of one study; ``known`` has fixed values and consumers' defaults by name."""

    def __init__(self, study: StudyData, known: Mapping[str, Any]) -> None:
        self._study = study
        self._axes = axes(study.space)
        self.distributions: dict[str, BaseDistribution] = {
            dimension.key: distribution(dimension.parameter) for dimension in self._axes.values()
        }
        self.known = known
        self.configurations = Configurations(study, known)

    def sample(
        self, sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial, fixed: Mapping[str, Any]
    ) -> Configuration | None:
        """Return the sampler's proposal; None if it has no more, or if this one breaks a constraint."""
        draw = _Draw(sampler, study, trial)
        trial.params, trial.distributions = {}, {}
        with quiet_optuna():
            if isinstance(sampler, Grid):
                draw.drawn = sampler.sample_relative(study, trial, {})
                if not draw.drawn:
                    return None
            return self.configurations.assemble(lambda dimension: self._ask(draw, dimension), fixed)

    def _ask(self, draw: _Draw, dimension: Dimension) -> Scalar:
        domain = self.distributions[dimension.key]
        if domain.single():
            return dimension.parameter.at(0)
        if dimension.key not in draw.drawn:
            together = () if isinstance(draw.sampler, Nearby) else self._together(dimension)
            domains = {other.key: self.distributions[other.key] for other in together}
            wanted = {key: d for key, d in domains.items() if key not in draw.drawn and not d.single()}
            if dimension.key in wanted:
                draw.drawn |= draw.sampler.sample_relative(draw.study, draw.trial, wanted)
        if dimension.key not in draw.drawn:
            draw.drawn[dimension.key] = draw.sampler.sample_independent(draw.study, draw.trial, dimension.key, domain)
        answer = _plain(dimension.parameter, draw.drawn[dimension.key])
        # As in Optuna's own loop, later labels may depend on earlier ones.
        draw.trial.params[dimension.key], draw.trial.distributions[dimension.key] = answer, domain
        return answer

    def _together(self, dimension: Dimension) -> Iterator[Dimension]:
        """Yield the dimensions that the study's sampler draws jointly with this one."""
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
    """Return a sampler's answer as a label of the domain: a plain Python value, not numpy's."""
    return domain.labels[domain.labels.index(answer)] if isinstance(domain, Choice) else domain.label(answer)
