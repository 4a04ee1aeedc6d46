"""A trial as data: its endings, the specification its process reads, and its record afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from sweepkit.study.damage import read_or_note
from sweepkit.study.paths import SPEC

FROM = "from "
"""Begins the origin of a trial whose configuration is an earlier study's."""


class Ending(StrEnum):
    """How a trial ended; ``paused``, ``running`` and ``waiting`` stand for trials that have not."""

    complete = "complete"
    pruned = "pruned"
    infeasible = "infeasible"
    diverged = "diverged"
    failed = "failed"
    stopped = "stopped"
    paused = "paused"
    running = "running"
    waiting = "waiting"

    @property
    def counts(self) -> bool:
        """Whether the trial counts in ``budget.trials``."""
        return self in (Ending.complete, Ending.pruned, Ending.infeasible, Ending.diverged, Ending.failed)

    @property
    def ranks(self) -> bool:
        """Whether the trial may be the best one."""
        return self is Ending.complete


class Reason(StrEnum):
    """Why a trial failed, diverged or was infeasible; decisions go by this, never by the message."""

    crash = "crash"
    """The task, or a library under it, raised an exception."""
    exit = "exit"
    """The process exited without reporting an end."""
    signal = "signal"
    """A signal killed the process."""
    deadline = "deadline"
    """The trial ran longer than ``budget.trial_hours``."""
    driver_lost = "driver_lost"
    """Its driver or warm process died each time it was started."""
    lost = "lost"
    """The machine it ran on was lost."""
    disk_full = "disk_full"
    """A disk or quota was full."""
    out_of_memory = "out_of_memory"
    """Memory, of the GPU or the machine, was not enough."""
    not_finite = "not_finite"
    """A loss, a metric or the objective was NaN or infinite."""
    interrupted = "interrupted"
    """The driver killed it because the study was stopped."""


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """What a trial's process needs to train it, as JSON data."""

    number: int
    hyperparameters: Mapping[str, Any]
    """Consumer's name → value, linked and derived ones included."""
    directory: str
    attempt: int = 1
    resume_from: str | None = None
    """Trainer checkpoint to resume from."""
    evaluations: tuple[Mapping[str, Any], ...] = ()
    """Evaluations up to ``resume_from``: the fields of Evaluated, oldest first."""
    micro_batch_divisor: int = 1
    """Power of two by which the micro-batch is divided (and the accumulation multiplied) after running out of memory."""
    seed: int | None = None
    """Replaces ``training.seed`` (confirmation runs, ``seed_per_trial``)."""
    devices: tuple[str, ...] = ()
    """GPU ids for CUDA_VISIBLE_DEVICES; empty for none."""
    gpus: float = 0.0
    """How many these are, one that is shared by its share."""
    threads: int = 1
    rank: int = 0
    ranks: int = 1
    drawn: Mapping[str, Any] | None = None
    """Sampler's dimension → number or label; None outside the search."""

    def batch(self, arguments: Mapping[str, Any]) -> dict[str, int]:
        """Return the TrainingArguments that the divisor changes, for the same effective batch; empty for a divisor of 1.

        Raises MemoryError where the micro-batch is not divisible by it.
        """
        if self.micro_batch_divisor == 1:
            return {}
        size, rest = divmod(int(arguments.get("per_device_train_batch_size", 8)), self.micro_batch_divisor)
        if rest:
            whole = size * self.micro_batch_divisor + rest
            raise MemoryError(f"a batch of {whole} cannot be split into {self.micro_batch_divisor}")
        accumulation = int(arguments.get("gradient_accumulation_steps", 1)) * self.micro_batch_divisor
        return {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}

    def to_json(self) -> str:
        """Return the spec as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> TrialSpec:
        """Return the spec written by :meth:`to_json`."""
        data = json.loads(text)
        return cls(**{**data, "evaluations": tuple(data["evaluations"]), "devices": tuple(data["devices"])})


def read_spec(folder: Path) -> TrialSpec | None:
    """Return the spec in a trial's folder; None without one and, after a note, where it is damaged."""
    found: TrialSpec | None = read_or_note(folder / SPEC, TrialSpec, "the study's storage stands in for it")
    return found


@dataclass(frozen=True)
class Decision:
    """What was decided for a trial at an evaluation; at evaluation 0: that it starts."""

    evaluation: int
    answer: str
    """``start``, ``continue``, ``pause`` or ``prune``."""
    why: str = ""
    """One line for people."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One change in a member's schedule under population-based training, made at an evaluation."""

    evaluation: int
    step: int
    """Global step of that evaluation."""
    value: float
    """The member's value there, in the deciding goal."""
    hyperparameters: Mapping[str, Any]
    """New hyperparameters, by their consumers' names."""
    donor: int | None = None
    """The member whose weights it continues with; None for its own."""


def lineage(
    schedules: Mapping[int, Sequence[Turn]], number: int, until: float = float("inf")
) -> tuple[int, tuple[Turn, ...]]:
    """Return the trial in which the weights of ``number`` before evaluation ``until`` began, and their turns since.

    Where a member copied a donor's weights, their past is the donor's.
    """
    turns = [turn for turn in schedules.get(number, ()) if turn.evaluation < until]
    for index, turn in reversed(list(enumerate(turns))):
        if turn.donor is not None:
            root, past = lineage(schedules, turn.donor, turn.evaluation)
            return root, (*past, *turns[index:])
    return number, tuple(turns)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The record of a trial: a row of ``sweep show``, ``study.trials`` and the report."""

    number: int
    ending: Ending
    reason: Reason | None = None
    """None where it ended well or has not ended, and in studies of versions that did not record it."""
    cause: str = ""
    """The reason in words: the exception's first line, the signal's name."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Hyperparameters by their consumers' names, linked and derived ones included."""
    drawn: Mapping[str, Any] = field(default_factory=dict)
    """Sampler's dimension → number or label."""
    values: tuple[float, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    """All metrics of the evaluation that decides the values."""
    intermediate: Mapping[int, float] = field(default_factory=dict)
    """Evaluation number (from 1) → value the pruner saw."""
    started: str | None = None
    """ISO 8601, local time."""
    seconds: float | None = None
    attempts: int = 0
    checkpoint: Path | None = None
    mlflow_run: str | None = None
    name: str = ""
    """The name a person gave it, else empty."""
    seed: int | None = None
    """Its own seed, in place of the study's (confirmation runs)."""
    schedule: tuple[Turn, ...] = ()
    """Changes to ``params`` while it trained (population-based training), oldest first."""
    decisions: tuple[Decision, ...] = ()
    """What was decided at its evaluations, by evaluation; the last one of an evaluation holds."""
    origin: str = "sampled"
    """``baseline``, ``enqueued``, ``sampled``, ``from STUDY, trial N``, ``retry of N`` or ``confirm of N``, for people
    to read."""
    retry_of: int | None = None
    """The failed trial that this one repeats."""
    confirm_of: int | None = None
    """The trial that this confirmation run repeats with a new seed."""

    @property
    def value(self) -> float | None:
        """The first objective's value, or None where there is none."""
        return self.values[0] if self.values else None
