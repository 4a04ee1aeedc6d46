"""Every file and folder name that sweepkit writes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NAME, LONGEST_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$", 100
"""What a study may be called: it names a folder. The words for it are ``NAMING``."""
NAMING = "letters, digits, dot, dash and underscore, beginning with a letter or a digit"

RUNS = "runs"
"""In a project's root: the folders of its studies."""
ROOT_MARKS = ("pyproject.toml", ".git")

STUDY = "study.json"
"""In a study's folder: the study as last run. A folder with this file is a study's."""

TRIALS = "trials"
"""In a study's folder: the folders of its trials."""

SPEC = "spec.json"
"""In a trial's folder: its TrialSpec."""
EVENTS = "events.jsonl"
"""In a trial's folder: its log of events."""
CONSOLE = "console.log"
"""In a trial's folder: its process's output."""
BEST = "best"
"""In a trial's folder: its best checkpoint."""
MODEL = "mlflow"
"""In a trial's folder: a link to the files of ``best/`` in MLflow, where these share the disk."""
ARGUMENTS = "training_args.bin"
"""In a checkpoint: a pickle of every training argument, local paths included; no model that is passed on has it."""
LAST = "last"
"""In a trial's folder, until the trial ends: the checkpoint it resumes from."""
BEST_NEW, BEST_OLD, LAST_NEW = f"{BEST}.new", f"{BEST}.old", f"{LAST}.new"
"""In a trial's folder while a checkpoint is being replaced: what is being written, and what it replaces."""
CHECKPOINTS = (BEST, BEST_NEW, BEST_OLD, LAST, LAST_NEW)
"""Every folder of checkpoints that a trial's folder may hold."""
CHECKED = "checked.json"
"""In prepared data: which state of its files was found whole, and since which start of the machine."""
SEAL = "seal.json"
"""In a checkpoint and in prepared data: the checksum of every file."""
TORN = ".torn"
"""Suffix of a folder or file that was damaged and set aside; a log's is ``.damaged-`` and the time."""
MEASURED = "measured.json"
"""In the folder of a trial run only to be measured: its seconds and bytes."""

ABOUT = "about.json"
"""In a folder of prepared data: its digest, rows and columns."""
TASK = "task.pickle"
"""In the folder of a study made in Python: its pickled task."""
CONFIRM = "confirm"
"""In a study's folder: its confirmation runs, laid out like a study."""


def rank_name(name: str, rank: int) -> str:
    """Return a trial's file for one rank of a distributed trial; rank 0 has the plain name.

    >>> rank_name(CONSOLE, 0), rank_name(CONSOLE, 2)
    ('console.log', 'console-rank2.log')
    """
    path = Path(name)
    return name if rank == 0 else f"{path.stem}-rank{rank}{path.suffix}"


def project_root(home: Path, name: str = "") -> Path:
    """Return the folder in whose ``runs/`` the study ``name`` in ``home`` lies, or a new one of that folder would.

    What ran stays where it is, also if a parent becomes a project later; of several places the last used counts. Otherwise it
    is the nearest folder from ``home`` upwards that has runs, pyproject.toml or .git, else ``home``.
    """
    home = home.resolve()
    above = (home, *home.parents)
    records = [folder / RUNS / name / STUDY for folder in above if name]
    homes = {record: _home_in(record) for record in records if record.exists()}
    ours = [record for record, found in homes.items() if found in ("", os.path.relpath(home, record.parents[2]))]
    if found := ours or [record for record, other in homes.items() if other is None]:
        return max(found, key=lambda record: record.stat().st_mtime).parents[2]
    return next(
        (folder for folder in above if has_runs(folder) or any((folder / m).exists() for m in ROOT_MARKS)), home
    )


def has_runs(folder: Path) -> bool:
    """Whether studies ran in this folder, so that it is a project's root."""
    return next((folder / RUNS).glob(f"[!.]*/{STUDY}"), None) is not None


def _home_in(record: Path) -> str | None:
    """Return the folder that a study.json records; empty where an earlier version did not, None where it cannot be read."""
    try:
        return str(json.loads(record.read_bytes()).get("home", ""))
    except (OSError, ValueError, AttributeError):
        return None


def study_files(home: Path, name: str) -> Iterator[Path]:
    """Yield the YAML files of a folder that hold the study of this name."""
    for path in sorted(home.glob("*.y*ml")):
        if re.search(rf"(?m)^name:\s*[\"']?{re.escape(name)}[\"']?\s*(#.*)?$", path.read_text(errors="replace")):
            yield path


def is_name(text: str) -> bool:
    """Whether a study may be called this."""
    return bool(re.fullmatch(NAME, text)) and len(text) <= LONGEST_NAME


class _Under:
    """A path below another one of the same Place."""

    def __init__(self, parent: str, name: str) -> None:
        self._parent = parent
        self._name = name

    def __get__(self, place: Place, owner: type[Place]) -> Path:
        parent: Path = getattr(place, self._parent)
        return parent / self._name


@dataclass(frozen=True)
class Place:
    """The folders and files of one study."""

    home: Path
    """Folder of the study file; relative paths in the study start here."""
    root: Path
    """Project root; ``runs/`` and a relative ``mlflow.db`` lie here."""
    name: str

    runs = _Under("root", RUNS)
    """Folder of all studies of the project."""
    data = _Under("runs", ".data")
    """Prepared data sets, shared by all studies of the project."""
    archive = _Under("runs", ".archive")
    """Where ``--fresh`` moves earlier studies."""
    journal = _Under("folder", "optuna.journal")
    """Optuna's journal file."""
    study_json = _Under("folder", STUDY)
    """The resolved study as last run, with its id."""
    mlflow_json = _Under("folder", "mlflow.json")
    """What was delivered to MLflow: run ids and offsets."""
    spent_json = _Under("folder", "spent.json")
    """Seconds of driver and slots, summed over resumes."""
    outcome_json = _Under("folder", "outcome.json")
    """How the last run ended, ``running`` until then."""
    data_json = _Under("folder", "data.json")
    """What is known of the prepared data that the last run's first trial was built with."""
    verdict_json = _Under("folder", f"{CONFIRM}/verdict.json")
    """The result of the confirmation."""
    test_json = _Under("folder", "test.json")
    """When the test split was used, and the metrics on it."""
    report = _Under("folder", "report.html")
    """The report."""
    task = _Under("folder", TASK)
    """The pickled task of a study made in Python."""
    inspect_log = _Under("folder", "inspect.log")
    """Output of the jobs before the first trial: preparing data, inspecting the task, measuring."""
    warm_log = _Under("folder", "warm.log")
    """Output of the warm process."""
    test_log = _Under("folder", "test.log")
    """Output of the evaluation on the test split."""
    ui_log = _Under("folder", "ui.log")
    """Output of the tracker's user interface."""
    lock = _Under("folder", "lock")
    """Held by the driver while it runs; contains its pid and host."""
    identity_lock = _Under("folder", "identity.lock")
    """Held while ``study.json`` is compared and written."""
    spent_lock = _Under("folder", "spent.lock")
    """Held while ``spent.json`` is read and written."""
    mlflow_lock = _Under("folder", "mlflow.lock")
    """Held by the one of several drivers that delivers to MLflow."""
    scratch = _Under("folder", "scratch")
    """Short-lived files of the driver and its jobs; emptied when a driver starts."""
    trials = _Under("folder", TRIALS)
    """Folder of the trials' folders."""

    @classmethod
    def of(cls, name: str, home: Path) -> Place:
        """Return the place of the study ``name`` whose file lies in ``home``."""
        home = home.resolve()
        return cls(home, project_root(home, name), name)

    @property
    def folder(self) -> Path:
        """Folder of this study."""
        return self.runs / self.name

    def trial(self, number: int) -> Path:
        """Return the folder of one trial."""
        return self.trials / f"{number:04d}"

    def leads_out(self, number: int) -> bool:
        """Whether a link in the place of a trial's folder, or of all trials', leads out of the study's folder."""
        folder = self.trial(number)
        return folder.resolve() != self.folder.resolve() / TRIALS / folder.name

    def holds_model(self, folder: Path) -> bool:
        """Whether a folder is the model of one that MLflow stored within the project."""
        return folder.is_relative_to(self.root.resolve()) and (folder.parent / "MLmodel").is_file()

    def next_number(self) -> int:
        """Return the number after the last trial that has a log with something in it; 0 without one."""
        numbers = sorted((int(f.name) for f in self.trials.glob("*") if f.name.isdigit()), reverse=True)
        return next((number + 1 for number in numbers if _size(self.trial(number) / EVENTS)), 0)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
