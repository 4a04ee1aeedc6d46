"""What a person types for STUDY, ``--set`` and ``name=value``, made into studies and values. Knows no process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweepkit.errors import InputError, Problem, StudyFileError, StudyNotFound, nearest
from sweepkit.paths import Place, project_root

if TYPE_CHECKING:
    from sweepkit.search import Search
    from sweepkit.study import Study
    from sweepkit.trial import Turn

STUDY_FILE = "study.yaml"


def complete(incomplete: str) -> list[str]:
    """Return what STUDY may go on as: names of studies that ran, and study files near here."""
    near = sorted(str(path) for depth in ("", "*/", "*/*/") for path in Path().glob(f"{depth}{STUDY_FILE}"))
    return [text for text in (*names(), *near) if text.startswith(incomplete)]


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


def folders() -> Iterator[Path]:
    """Yield the folders of the project's studies that ran, by name."""
    runs = project_root(Path.cwd()) / "runs"
    yield from sorted(path.parent for path in runs.glob("[!.]*/study.json"))


def names() -> list[str]:
    """Return the names of the project's studies that ran."""
    return [folder.name for folder in folders()]


def find(argument: str, overrides: Iterable[str] | None = None, *, check: bool = True) -> Study:
    """Return the study a person means: a file, a folder with a study file, a folder under ``runs/``, or a name there.

    A file wins over a name. Raises StudyNotFound, StudyFileError.
    """
    from sweepkit.load import load_study

    path, wanted = Path(argument), list(overrides or [])
    if path.is_file() or path.suffix in (".yaml", ".yml"):
        return load_study(argument, wanted, check=check)
    if (path / STUDY_FILE).is_file():
        return load_study(path / STUDY_FILE, wanted, check=check)
    folder = _ran(argument)
    if folder is None:
        known = names()
        listed = (
            f"studies of this project that ran: {', '.join(known)}" if known else "no study of this project ran yet"
        )
        raise StudyNotFound(f"there is no file, folder or study {argument}{nearest(argument, known)} ({listed})")
    if wanted:
        raise InputError(f"--set goes with a study file; {argument} is the name of one that ran")
    return stored(folder)


def _ran(argument: str) -> Path | None:
    named = project_root(Path.cwd()) / "runs" / argument
    return next((folder for folder in (Path(argument), named) if (folder / "study.json").is_file()), None)


def stored(folder: Path) -> Study:
    """Return the study as it last ran, from its folder under ``runs/``."""
    from sweepkit.identity import Identity
    from sweepkit.study import Study

    folder = folder.resolve()
    root = folder.parents[1]
    found = Identity.load(Place(root, root, folder.name))
    assert found is not None
    return Study.model_validate_json(json.dumps(found.study)).at(root / found.home)


def find_run(argument: str) -> Study:
    """Return a study as it last ran, for commands that look at results; a file that never ran stands for itself."""
    found = find(argument, check=False)
    folder = found.place.folder
    if not (folder / "study.json").is_file():
        return found
    ran = stored(folder)
    # Passwords in addresses are not recorded, so what the file says of them wins.
    return ran.model_copy(update={"storage": found.storage, "tracking": found.tracking}).at(found.home)


def assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Return name → value of ``name=value`` texts; values are read as in a study file. Raises InputError."""
    from sweepkit.load.documents import read

    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InputError(f"expected NAME=VALUE, got {text!r}")
        values[name.strip()] = read(value, name.strip(), line=False).data
    return values


def within_space(study: Study, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the values when the study's space has them. Raises StudyFileError with everything that is wrong."""
    from sweepkit.check import check_configuration

    problems = check_configuration(study, values, "enqueue")
    if problems:
        raise StudyFileError(Problem(problem.path.removeprefix("enqueue."), problem.message) for problem in problems)
    return values


def completed(study: Study, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return one trial's hyperparameters: the values, what follows from them, defaults for the rest of the space.

    The values may lie outside of the space. Raises StudyFileError for names that nothing takes, values that do not fit.
    """
    from sweepkit.check import wrong_values
    from sweepkit.load import known_values
    from sweepkit.proposal import Proposer

    if problems := wrong_values(study, values):
        raise StudyFileError(problems)
    return dict(Proposer(study, known_values(study)).baseline(values).hyperparameters)


def trained(study: Study, number: int) -> tuple[Mapping[str, Any], Sequence[Turn]]:
    """Return what a trial was trained with: at first, and at the turns of its schedule up to what stands for it.

    Raises StudyNotFound where there is no such trial.
    """
    from sweepkit import results
    from sweepkit.journal import TrialLog
    from sweepkit.trial import lineage
    from sweepkit.value import ValueRule

    rows = {row.number: row for row in results.read(study)}
    if number not in rows:
        raise StudyNotFound(f"study {study.name} has no trial {number}")
    evaluations = TrialLog(study.place.trial(number)).evaluations
    decisive = ValueRule(study.objective).decisive([event.values for event in evaluations]) if evaluations else -1
    schedules = {each: row.schedule for each, row in rows.items()}
    root, turns = lineage(schedules, number, evaluations[decisive].number if evaluations else 0)
    return rows[root].params, turns


def search(study: Study) -> Search:
    """Return the study's search, for commands that add trials to it."""
    from sweepkit.load import known_values
    from sweepkit.search import Search
    from sweepkit.storage import open_storage

    return Search(study, open_storage(study.place, study), known=known_values(study))
