"""Every file and folder name that sweepkit writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT_MARKS = ("pyproject.toml", ".git")

STUDY = "study.json"
"""In a study's folder: the study as last run. A folder with this file is a study's."""

SPEC = "spec.json"
"""In a trial's folder: its TrialSpec."""
EVENTS = "events.jsonl"
"""In a trial's folder: its log of events."""
CONSOLE = "console.log"
"""In a trial's folder: its process's output."""
BEST = "best"
"""In a trial's folder: its best checkpoint."""
LAST = "last"
"""In a trial's folder, until the trial ends: the checkpoint it resumes from."""
BEST_NEW, BEST_OLD, LAST_NEW = f"{BEST}.new", f"{BEST}.old", f"{LAST}.new"
"""In a trial's folder while a checkpoint is being replaced: what is being written, and what it replaces."""
CHECKPOINTS = (BEST, BEST_NEW, BEST_OLD, LAST, LAST_NEW)
"""Every folder of checkpoints that a trial's folder may hold."""
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


def project_root(home: Path) -> Path:
    """Return the nearest parent of ``home`` (itself included) with pyproject.toml or .git, else ``home``."""
    home = home.resolve()
    return next((folder for folder in (home, *home.parents) if any((folder / m).exists() for m in ROOT_MARKS)), home)


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

    runs = _Under("root", "runs")
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
    trials = _Under("folder", "trials")
    """Folder of the trials' folders."""

    @classmethod
    def of(cls, name: str, home: Path) -> Place:
        """Return the place of the study ``name`` whose file lies in ``home``."""
        home = home.resolve()
        return cls(home, project_root(home), name)

    @property
    def folder(self) -> Path:
        """Folder of this study."""
        return self.runs / self.name

    def trial(self, number: int) -> Path:
        """Return the folder of one trial."""
        return self.trials / f"{number:04d}"
