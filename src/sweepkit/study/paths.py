"""Where a study's files lie: every name on disk, and nothing about what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT_MARKS = ("pyproject.toml", ".git")

STUDY = "study.json"
"""In a study's folder: the study as it was last run. A folder that holds it is a study's."""

SPEC = "spec.json"
"""In a trial's folder: what its process is given."""
EVENTS = "events.jsonl"
"""In a trial's folder: its log."""
CONSOLE = "console.log"
"""In a trial's folder: what its process printed."""
BEST = "best"
"""In a trial's folder: its best checkpoint."""
LAST = "last"
"""In a trial's folder: the checkpoint it resumes from, while it may be resumed."""
MEASURED = "measured.json"
"""In the folder of a trial that is only measured: its seconds and bytes."""

ABOUT = "about.json"
"""In a folder of prepared data: its digest, rows and columns."""
TASK = "task.pickle"
"""A task of a study made in Python, by value."""
CONFIRM = "confirm"
"""Under a study's folder: its confirmation runs, laid out like a study's."""


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


@dataclass(frozen=True)
class Place:
    """The folders and files of one study."""

    home: Path
    """Folder of the study file; relative paths in the study start here."""
    root: Path
    """Project root; ``runs/`` and a relative ``mlflow.db`` lie here."""
    name: str

    @classmethod
    def of(cls, name: str, home: Path) -> Place:
        """Return the place of the study ``name`` whose file lies in ``home``."""
        home = home.resolve()
        return cls(home, project_root(home), name)

    @property
    def runs(self) -> Path:
        """Folder of all studies of the project."""
        return self.root / "runs"

    @property
    def data(self) -> Path:
        """Prepared data sets, shared by all studies of the project."""
        return self.runs / ".data"

    @property
    def archive(self) -> Path:
        """Where ``--fresh`` moves earlier studies."""
        return self.runs / ".archive"

    @property
    def folder(self) -> Path:
        """Folder of this study."""
        return self.runs / self.name

    @property
    def journal(self) -> Path:
        """Optuna's journal file."""
        return self.folder / "optuna.journal"

    @property
    def study_json(self) -> Path:
        """The resolved study as it was last run, with its id."""
        return self.folder / STUDY

    @property
    def mlflow_json(self) -> Path:
        """What the MLflow tracker has delivered: run ids and offsets."""
        return self.folder / "mlflow.json"

    @property
    def spent_json(self) -> Path:
        """Seconds of driver and slots, summed over resumes."""
        return self.folder / "spent.json"

    @property
    def verdict_json(self) -> Path:
        """What the confirmation concluded."""
        return self.folder / CONFIRM / "verdict.json"

    @property
    def test_json(self) -> Path:
        """That the test split was used, and the metrics on it."""
        return self.folder / "test.json"

    @property
    def report(self) -> Path:
        """The report page."""
        return self.folder / "report.html"

    @property
    def task(self) -> Path:
        """The task of a study made in Python, by value."""
        return self.folder / TASK

    @property
    def inspect_log(self) -> Path:
        """Console of the jobs before the first trial: data, a look at the task, measurements."""
        return self.folder / "inspect.log"

    @property
    def warm_log(self) -> Path:
        """Console of the warm process."""
        return self.folder / "warm.log"

    @property
    def test_log(self) -> Path:
        """Console of the evaluation on the test split."""
        return self.folder / "test.log"

    @property
    def ui_log(self) -> Path:
        """Console of the tracker's user interface."""
        return self.folder / "ui.log"

    @property
    def lock(self) -> Path:
        """Held by the driver while it runs; holds its pid and host."""
        return self.folder / "lock"

    @property
    def identity_lock(self) -> Path:
        """Held while ``study.json`` is compared and written."""
        return self.folder / "identity.lock"

    @property
    def spent_lock(self) -> Path:
        """Held while ``spent.json`` is read and written."""
        return self.folder / "spent.lock"

    @property
    def mlflow_lock(self) -> Path:
        """Held by the one of several drivers that delivers to MLflow."""
        return self.folder / "mlflow.lock"

    @property
    def scratch(self) -> Path:
        """Short-lived files of the driver and its jobs; a new driver removes what a killed one left."""
        return self.folder / "scratch"

    @property
    def trials(self) -> Path:
        """Folder of the trials' folders."""
        return self.folder / "trials"

    def trial(self, number: int) -> Path:
        """Return the folder of one trial."""
        return self.trials / f"{number:04d}"
