"""What a study's confirmation came to: the verdict, the trial it chose, the one evaluation on the test split."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweepkit.report import rows as results
from sweepkit.study.paths import Place
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Trial

SUFFIX = "/confirm"


def confirmed(study: StudyData, rows: Sequence[Trial]) -> dict[str, Any] | None:
    """Return the verdict of a study's confirmation as plain data; None without one, or when a better trial came since."""
    found = read(verdict_file(study.place))
    luck = (found or {}).get("luck")
    return found if luck and luck["number"] == _best(study, rows) else None


def chosen(study: StudyData, rows: Sequence[Trial]) -> Trial | None:
    """Return the study's answer: the trial with the best confirmed mean, before a confirmation the best of the search."""
    verdict = confirmed(study, rows)
    number = verdict["chosen"] if verdict else _best(study, rows)
    return next((row for row in rows if row.number == number), None)


def winners(study: StudyData, rows: Sequence[Trial]) -> list[Trial]:
    """Return the study's answer: the trial that is chosen, or with several goals the Pareto front."""
    if len(study.objective.goals) > 1:
        return results.winners(study, rows)
    found = chosen(study, rows)
    return [found] if found else []


def answer(study: StudyData, rows: Sequence[Trial], *, status: str = "done", reason: str = "") -> dict[str, Any]:
    """Return what a study ended with, as trackers record it: the choice, the verdict behind it, the test where it was."""
    found = results.answer(study, rows, status=status, reason=reason)
    verdict, row, test = confirmed(study, rows), chosen(study, rows), tested(study)
    if verdict and row:
        found |= {"best": row.number, "value": row.value, "confirm": verdict}
    return found | ({"test": test} if test else {})


def tested(study: StudyData) -> dict[str, Any] | None:
    """Return what is recorded of the one evaluation on the test split, or None while there was none."""
    return read(tested_file(study.place))


def verdict_file(place: Place) -> Path:
    """Return where a study's verdict lies."""
    return place.folder / "confirm" / "verdict.json"


def tested_file(place: Place) -> Path:
    """Return where it is recorded that the test split was used, and what came out."""
    return place.folder / "test.json"


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Write plain data, whole or not at all."""
    draft = path.with_suffix(".json.new")
    draft.write_text(json.dumps(data, indent=2) + "\n")
    os.replace(draft, path)


def read(path: Path) -> dict[str, Any] | None:
    """Return the plain data of a file, or None where there is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return found


def _best(study: StudyData, rows: Iterable[Trial]) -> int | None:
    found = results.ranked(study, rows)
    return found[0].number if found else None
