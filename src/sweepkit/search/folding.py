"""Makes one record of the many that a journal has of a trial, so that a long study opens in a third of the time.

Optuna applies a journal's records one by one, and copies a trial for each. What is read first, on opening, is folded here: what
was set on a trial is in the record that creates it.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from typing import Any

CREATE_STUDY, DELETE_STUDY, CREATE_TRIAL = 0, 1, 4
SET_PARAM, SET_STATE, SET_VALUE, SET_USER_ATTR, SET_SYSTEM_ATTR = 5, 6, 7, 8, 9
"""What a record does, by its ``op_code``; a test compares with Optuna's own names."""
RUNNING = 0
FINISHED = frozenset({1, 2, 3})
"""A trial's states, as a record has them."""


def fold(lines: Iterable[bytes], apart: Container[int]) -> list[dict[str, Any]]:
    """Return fewer records than there are lines, from which Optuna makes the same trials; those of trials ``apart`` stay."""
    kept: list[dict[str, Any]] = []
    studies: set[str] = set()
    trials: list[dict[str, Any]] = []
    for record in map(json.loads, lines):
        code = record["op_code"]
        if code in (SET_STATE, SET_VALUE, SET_USER_ATTR, SET_SYSTEM_ATTR) and record["trial_id"] not in apart:
            if record["trial_id"] < len(trials):
                _set(trials[record["trial_id"]], record)
            continue
        kept.append(record)
        if code == CREATE_STUDY:
            studies.add(record["study_name"])
        elif code == CREATE_TRIAL and record["study_id"] < len(studies):
            for name in ("user_attrs", "system_attrs", "intermediate_values"):
                record.setdefault(name, {})
            trials.append(record)
    return kept


def unfoldable(lines: Iterable[bytes]) -> set[int] | None:
    """Return the trials that got parameters one by one, which Optuna compares with other trials'; None where nothing folds."""
    apart: set[int] = set()
    for line in lines:
        if f'"op_code":{SET_PARAM},'.encode() in line:
            apart.add(json.loads(line).get("trial_id"))
        elif f'"op_code":{DELETE_STUDY},'.encode() in line:
            return None
    return apart


def _set(trial: dict[str, Any], record: Mapping[str, Any]) -> None:
    """Set on a trial what a record says, as Optuna would: nothing once it has ended."""
    code, state = record["op_code"], trial.get("state", RUNNING)
    if state in FINISHED:
        return
    if code == SET_USER_ATTR:
        trial["user_attrs"].update(record["user_attr"])
    elif code == SET_SYSTEM_ATTR:
        trial["system_attrs"].update(record["system_attr"])
    elif code == SET_VALUE:
        trial["intermediate_values"][str(record["step"])] = record["intermediate_value"]
    elif not state == record["state"] == RUNNING:
        trial |= {name: record[name] for name in ("state", "datetime_start", "datetime_complete") if name in record}
        if record["values"] is not None:
            trial |= {"value": None, "values": record["values"]}
