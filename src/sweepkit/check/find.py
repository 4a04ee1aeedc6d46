"""Finds the study that a command names: a file, a folder or a name; as written, or as it last ran."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sweepkit.check import Checked, check
from sweepkit.check.study_file import load_study
from sweepkit.check.study_file import read_study as read_study_file
from sweepkit.study.damage import fault_of
from sweepkit.study.errors import DamagedFile, InputError, StudyNotFound, SweepError, nearest
from sweepkit.study.identity import Identity, missing_secret, with_secrets
from sweepkit.study.paths import RUNS, STUDY, TRIALS, Place, has_runs, project_root, study_files
from sweepkit.study.secrets import lost
from sweepkit.study.study import StudyData

STUDY_FILE = "study.yaml"
LEVELS, MOST = 5, 2000
"""Levels of folders, and most folders of a level, that are searched for runs below a project's root."""
_OTHERS = (RUNS, "mlartifacts", "mlruns", "node_modules", "__pycache__", "site-packages")


def study_folders() -> Iterator[Path]:
    """Yield the folders of the studies that ran: the project's by name, then those of roots below it."""
    for root in _roots(project_root(Path.cwd())):
        found = {path.parent for name in (STUDY, TRIALS) for path in (root / RUNS).glob(f"[!.]*/{name}")}
        yield from sorted(found)


def _roots(top: Path) -> Iterator[Path]:
    """Yield ``top`` and the folders near below it in which studies ran, for example before it became a project."""
    level, seen = [top], {top}
    for _ in range(LEVELS):
        yield from (folder for folder in level if folder == top or has_runs(folder))
        inner = {child.resolve(): child for folder in reversed(level) for child in reversed(_children(folder))}
        level = [child for real, child in reversed(inner.items()) if real not in seen][:MOST]
        seen |= inner.keys()


def _children(folder: Path) -> list[Path]:
    try:
        inside = sorted(child for child in folder.iterdir() if child.is_dir())
    except OSError:
        return []
    return [child for child in inside if child.name not in _OTHERS and not child.name.startswith(".")]


def study_names() -> list[str]:
    """Return the names of the project's studies that ran."""
    return [folder.name for folder in study_folders()]


def find_study(argument: str, overrides: Iterable[str] = ()) -> Checked:
    """Return the study a person means, checked: a file, a folder with a study file, or one that ran, as it last ran.

    Those that ran are given by their folder under ``runs/`` or by name; a file wins over a name. Raises StudyNotFound
    and StudyFileError.
    """
    if file := _file(argument):
        return load_study(file, overrides)
    return check(_recorded(argument, overrides, whole=True))


def read_study(argument: str, overrides: Iterable[str] = ()) -> StudyData:
    """Return the same study without checking it against the installed libraries. Raises what :func:`find_study` does."""
    file = _file(argument)
    return read_study_file(file, overrides) if file else _recorded(argument, overrides)


def _file(argument: str) -> str | None:
    path = Path(argument)
    if path.is_file() or path.suffix in (".yaml", ".yml"):
        return argument
    return str(path / STUDY_FILE) if (path / STUDY_FILE).is_file() else None


def _recorded(argument: str, overrides: Iterable[str], *, whole: bool = False) -> StudyData:
    folder = _ran(argument)
    if folder is None:
        known = study_names()
        listed = (
            f"studies of this project that ran: {', '.join(known)}" if known else "no study of this project has run yet"
        )
        raise StudyNotFound(f"there is no file, folder or study {argument}{nearest(argument, known)} ({listed})")
    if list(overrides):
        raise InputError(f"--set goes with a study file; {argument} is the name of one that ran")
    return stored_study(folder, whole=whole)


def _ran(argument: str) -> Path | None:
    if (Path(argument) / STUDY).exists():
        return Path(argument)
    found = [folder for folder in study_folders() if folder.name == argument]
    if len(found) > 1 and found[0].parents[1] != project_root(Path.cwd()):
        listed = ", ".join(map(str, found))
        raise StudyNotFound(f"there are {len(found)} studies {argument}: {listed}; give the folder of the one you mean")
    return next(iter(found), None)


def is_found_by_name(place: Place) -> bool:
    """Whether a study's name is enough to find it from the current folder."""
    if _file(place.name) and Path(place.name).resolve() != place.home:
        return False
    try:
        found = _ran(place.name)
    except StudyNotFound:
        return False
    return found is not None and found.resolve() == place.folder.resolve()


def stored_study(folder: Path, written: StudyData | None = None, *, whole: bool = False) -> StudyData:
    """Return the study as it last ran, from its folder under ``runs/``.

    Its secrets are those of the study as ``written``, by default in the file of this name in its home. ``whole``: raise
    InputError where a trial would get a value from which a secret was removed.
    """
    folder = folder.resolve()
    root = folder.parents[1]
    place = Place(root, root, folder.name)
    found = Identity.of_trials(place)
    if found is None:
        raise StudyNotFound(f"{folder} is the folder of a study that has never run")
    home, plain = root / found.home, found.study
    known: dict[str, Any] = {}
    if any(lost(plain, known)) and (written := written or _written(home, folder.name)):
        known = written.model_dump(mode="json", by_alias=True)
    gone = [path for path in lost(plain, known) if path.startswith(("task.", "training."))]
    if whole and gone:
        raise missing_secret(gone[0])
    try:
        return StudyData.model_validate_json(json.dumps(with_secrets(plain, known))).at(home)
    except ValidationError as error:
        raise DamagedFile(place.study_json, fault_of(error), "open the study with the version that ran it") from error


def _written(home: Path, name: str) -> StudyData | None:
    """Return the study of this name that a file in a folder holds; None where none does, or it cannot be read."""
    for file in study_files(home, name):
        try:
            return read_study_file(file)
        except SweepError:
            continue
    return None


def find_run(argument: str) -> StudyData:
    """Return a study as it last ran, for commands that look at results; a file that never ran stands for itself."""
    found = read_study(argument)
    folder = found.place.folder
    if not (folder / STUDY).exists() and not found.place.next_number():
        return found
    ran = stored_study(folder, found)
    # What the file says of addresses wins.
    return ran.model_copy(update={"storage": found.storage, "tracking": found.tracking}).at(found.home)
