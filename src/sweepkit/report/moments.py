"""Where trials in training have got to, from what they say; for the pictures of ``run`` and ``show``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sweepkit.study.paths import Place
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Event, Logged, Started
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where a trial that is being trained has got to, by its own events."""

    params: Mapping[str, Any]
    step: int = 0
    epoch: float = 0.0
    evaluation: int = 0
    values: tuple[float, ...] = ()
    """The objective's metrics at the last evaluation."""
    history: tuple[float, ...] = ()
    """The first goal's metric at each evaluation so far."""
    since: float | None = None
    """Seconds since the epoch when this attempt started."""

    def after(self, event: Event) -> Moment:
        """Return the moment after one more event."""
        if isinstance(event, Started):
            whole = self if event.resumed else Moment(params=self.params)
            return replace(whole, since=event.at, step=event.resumed)
        if isinstance(event, Logged):
            return replace(self, step=event.step, epoch=event.epoch)
        if isinstance(event, Evaluated):
            return replace(
                self,
                step=event.step,
                epoch=event.epoch,
                evaluation=event.number,
                values=event.values,
                history=(*self.history, *event.values[:1]),
            )
        return self


def moment(place: Place, trial: Trial) -> Moment:
    """Return where a running trial has got to, read from its event log."""
    found = Moment(params=trial.params)
    for event in TrialLog(place.trial(trial.number)).events()[0]:
        found = found.after(event)
    return found


def hyperparameters(place: Place, number: int) -> dict[str, Any]:
    """Return what a trial's process was given, or nothing where that is not written down."""
    try:
        given = json.loads((place.trial(number) / "spec.json").read_text())
    except FileNotFoundError:
        return {}
    return dict(given.get("hyperparameters", {}))


def fraction(study: StudyData, moment: Moment) -> float | None:
    """Return how much of its schedule a trial has behind it, 0 to 1, or None where its length is not known."""
    given = {"num_train_epochs": 3.0, **study.training, **moment.params}
    steps, epochs = given.get("max_steps", -1), given["num_train_epochs"]
    if isinstance(steps, int) and steps > 0:
        return min(1.0, moment.step / steps)
    return min(1.0, moment.epoch / epochs) if isinstance(epochs, (int, float)) and epochs > 0 else None
