"""Where a study's things lie on disk. Knows names and places only, never contents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT_MARKS = ("pyproject.toml", ".git")


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
    def folder(self) -> Path:
        """Folder of this study."""
        return self.runs / self.name

    @property
    def lock(self) -> Path:
        """Held by the driver while it runs; says its pid and host."""
        return self.folder / "lock"

    @property
    def journal(self) -> Path:
        """Optuna's journal file."""
        return self.folder / "optuna.journal"

    @property
    def study_json(self) -> Path:
        """The resolved study as it was last run, with its id."""
        return self.folder / "study.json"

    @property
    def mlflow_json(self) -> Path:
        """What the tracker has delivered: run ids and offsets."""
        return self.folder / "mlflow.json"

    @property
    def task(self) -> Path:
        """The task of a study made in Python, by value."""
        return self.folder / "task.pickle"

    @property
    def data(self) -> Path:
        """Prepared data sets, shared by all studies of the project."""
        return self.runs / ".data"

    @property
    def archive(self) -> Path:
        """Where ``--fresh`` moves earlier studies."""
        return self.runs / ".archive"

    @property
    def scratch(self) -> Path:
        """Where a driver and its jobs put what lasts a moment; a driver that begins removes what a killed one left."""
        return self.folder / "scratch"

    @property
    def trials(self) -> Path:
        """Folder of the trials' folders."""
        return self.folder / "trials"

    def trial(self, number: int) -> Path:
        """Return the folder of one trial."""
        return self.trials / f"{number:04d}"
