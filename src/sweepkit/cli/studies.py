"""Arguments that several commands share: STUDY, ``--set`` and ``name=value``, and what they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweepkit.study.errors import InputError, Problem, StudyFileError, StudyNotFound
from sweepkit.tasks.kinds import KINDS

if TYPE_CHECKING:
    from sweepkit.check import Checked
    from sweepkit.search.search import Search
    from sweepkit.study.study import StudyData
    from sweepkit.trial.trial import Turn


def complete(incomplete: str) -> list[str]:
    """Return completions of STUDY: names of studies that ran, and study files near the current folder."""
    from sweepkit.check.find import STUDY_FILE, study_names

    near = sorted(str(path) for depth in ("", "*/", "*/*/") for path in Path().glob(f"{depth}{STUDY_FILE}"))
    return [text for text in (*study_names(), *near) if text.startswith(incomplete)]


def complete_path(incomplete: str) -> list[str]:
    """Return the files and folders that begin so."""
    found = sorted(Path().glob(f"{incomplete}*")) if not incomplete.startswith(("/", "~", ".")) else []
    return [f"{path}/" if path.is_dir() else str(path) for path in found if not path.name.startswith(".")]


Argument = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A study file, its folder, or the name of a study of this project that ran.",
        autocompletion=complete,
        show_default=False,
    ),
]
"""The argument STUDY of a command."""


DATA = (
    "A csv, json, parquet or CoNLL file, a folder with files of train, validation and test or with images by class, a dataset "
    "on the hub, or package:NAME/path."
)
"""The help of the argument DATA of a command."""
RecognisedKind = Annotated[
    str,
    typer.Option(
        help=f"Built-in task kind; recognised from the data's columns by default: {', '.join(KINDS)}.",
        autocompletion=lambda: list(KINDS),
        show_default=False,
    ),
]
DefaultModel = Annotated[
    str,
    typer.Option(
        help="A local folder, a model on the hub, or package:NAME/sub/folder; by default the kind's.",
        show_default=False,
    ),
]
Name = Annotated[
    str,
    typer.Option(help="Name of the study and of its folder; by default derived from the data's.", show_default=False),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a key of the study file, for example --set budget.trials=10. May be repeated.",
        show_default=False,
    ),
]
"""The option ``--set`` of a command."""


Json = Annotated[bool, typer.Option("--json", help="Print JSON with stable keys.")]
"""The option ``--json`` of a command."""


def assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Return name → value of texts ``name=value``, values read as YAML. Raises InputError."""
    from sweepkit.check.yaml import read

    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InputError(f"expected NAME=VALUE, got {text!r}")
        values[name.strip()] = read(value, name.strip(), line=False).data
    return values


def within_space(study: StudyData, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the values by the space's names if they lie in it. Raises StudyFileError with every problem."""
    from sweepkit.study.configurations import Configurations
    from sweepkit.study.space import spread

    values = spread(study.space, values)
    problems = Configurations(study, {}).problems(values, "enqueue")
    if problems:
        raise StudyFileError(Problem(problem.path.removeprefix("enqueue."), problem.message) for problem in problems)
    return values


def complete_values(checked: Checked, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return one trial's hyperparameters: the values, what derives from them, and defaults for the rest of the space.

    The values may lie outside the space. Raises StudyFileError for names that nothing consumes and values that do not fit.
    """
    from sweepkit.check import wrong_values
    from sweepkit.study.configurations import Configurations
    from sweepkit.study.space import spread

    values = spread(checked.study.space, values)
    if problems := wrong_values(checked.study, values):
        raise StudyFileError(problems)
    return dict(Configurations(checked.study, checked.known).baseline(values).hyperparameters)


def schedule_of(study: StudyData, number: int) -> tuple[Mapping[str, Any], Sequence[Turn]]:
    """Return the hyperparameters a trial began with, and the turns of its schedule up to the evaluation that counts.

    Raises StudyNotFound for a trial that does not exist.
    """
    from sweepkit.report.rows import read
    from sweepkit.trial.log import TrialLog
    from sweepkit.trial.trial import lineage

    rows = {row.number: row for row in read(study)}
    if number not in rows:
        raise StudyNotFound(f"study {study.name} has no trial {number}")
    evaluations = TrialLog(study.place.trial(number)).evaluations
    decisive = study.objective.decisive([event.values for event in evaluations]) if evaluations else -1
    schedules = {each: row.schedule for each, row in rows.items()}
    root, turns = lineage(schedules, number, evaluations[decisive].number if evaluations else 0)
    return rows[root].params, turns


def search(checked: Checked) -> Search:
    """Return the study's search, to add trials to it."""
    from sweepkit.search.proposer import Proposer
    from sweepkit.search.search import Search
    from sweepkit.search.storage import open_storage

    study = checked.study
    return Search(study, open_storage(study.place, study), Proposer(study, checked.known))
