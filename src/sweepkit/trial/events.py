"""The events of a trial as plain data: one JSON object per line, on the socket and in ``events.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sweepkit.trial.trial import Reason


@dataclass(frozen=True, kw_only=True)
class Event:
    """Common to all events: the trial's number, and ``at``, when it happened, in seconds since the epoch."""

    kind: ClassVar[str]
    trial: int
    at: float

    def to_json(self) -> str:
        """Return the event as one line of JSON; NaN and infinities as Python's json writes them."""
        return json.dumps({"kind": self.kind, **vars(self)}, separators=(",", ":"))


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """Training began; ``resumed`` is the global step it continues from, 0 from the start."""

    kind: ClassVar[str] = "started"
    attempt: int = 1
    pid: int = 0
    host: str = ""
    device: str = "cpu"
    resumed: int = 0
    effective: Mapping[str, Any] = field(default_factory=dict)
    """Training arguments that differ from transformers' defaults."""
    proved: tuple[str, ...] = ()
    """Hyperparameters read back from where they act."""
    unproved: tuple[str, ...] = ()
    """Hyperparameters that are set but cannot be read back."""


@dataclass(frozen=True, kw_only=True)
class Logged(Event):
    """The Trainer logged training metrics at a global ``step``, from 1."""

    kind: ClassVar[str] = "logged"
    step: int
    epoch: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Evaluated(Event):
    """An evaluation; ``number`` counts from 1 and is Optuna's step, ``values`` are the objective's metrics in order."""

    kind: ClassVar[str] = "evaluated"
    number: int
    step: int
    epoch: float
    metrics: Mapping[str, float]
    values: tuple[float, ...]
    final: bool = False
    """Whether the training is over; False in logs of versions that did not record it."""


@dataclass(frozen=True, kw_only=True)
class Checkpointed(Event):
    """A checkpoint is complete on disk; ``role`` is ``best`` (model only) or ``last`` (all that resuming needs)."""

    kind: ClassVar[str] = "checkpointed"
    step: int
    role: str
    path: str
    evaluation: int = 0


@dataclass(frozen=True, kw_only=True)
class Scheduled(Event):
    """After an evaluation the trial trains with these values, and with the weights of ``donor`` where there is one."""

    kind: ClassVar[str] = "scheduled"
    evaluation: int
    step: int
    hyperparameters: Mapping[str, Any]
    donor: int | None = None


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """A trial's attempt ended; written once per attempt, by the driver where the trial itself no longer can."""

    kind: ClassVar[str] = "finished"
    ending: str
    reason: Reason | None = None
    """None where it ended well or was stopped, and in logs of versions that did not record it."""
    cause: str = ""
    """The reason in words, for people."""
    step: int = 0
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    values: tuple[float, ...] = ()
    """The objective's values by its rule (best, last or mean); empty without an evaluation."""
    neighbours: int = 0
    """Other trials that shared its GPU at a time, the most there were."""


EVENTS: dict[str, type[Event]] = {
    cls.kind: cls for cls in (Started, Logged, Evaluated, Checkpointed, Scheduled, Finished)
}


def from_json(line: str | bytes, *, trial: int | None = None) -> Event:
    """Return the event written by :meth:`Event.to_json`.

    Raises ValueError, KeyError or TypeError for anything else, also for an event that is not of ``trial``.
    """
    data = dict(json.loads(line))
    if trial is not None and data["trial"] != trial:
        raise ValueError(f"an event of trial {data['trial']}, not of {trial}")
    cls = EVENTS[data.pop("kind")]
    for name in ("values", "proved", "unproved"):
        if name in data:
            data[name] = tuple(data[name])
    if data.get("reason"):
        data["reason"] = Reason(data["reason"])
    return cls(**data)
