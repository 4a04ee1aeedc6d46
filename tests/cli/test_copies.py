"""A copied or moved project records into itself: the original stays as it is, byte for byte."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from typer.testing import CliRunner

from making import toy_study
from sweepkit.check.study_file import to_yaml
from sweepkit.cli import app

pytestmark = pytest.mark.real


def sweep(*words: str, cwd: Path) -> str:
    """Return what the command printed."""
    with chdir(cwd):
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done.stdout


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    """Return the content and the time of change of everything below a folder."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.lstat().st_mtime_ns,
        )
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a folder, no project yet, in which ``a/b/study.yaml`` ran; it must not change."""
    top = tmp_path_factory.mktemp("places") / "original"
    (top / "a" / "b").mkdir(parents=True)
    study = toy_study(top, tracking={"uri": "sqlite:///mlflow.db"}, budget={"trials": 2}, backend={"parallel": 1})
    (top / "a/b/study.yaml").write_text(to_yaml(study))
    # A process of its own, so that no open database is closed later, which writes to it.
    subprocess.run(
        [sys.executable, "-m", "sweepkit", "run", "a/b/study.yaml"], cwd=top, check=True, capture_output=True
    )
    assert json.loads(sweep("list", "--json", cwd=top))["studies"][0]["name"] == "toy"
    before = fingerprint(top)
    yield top
    assert fingerprint(top) == before


def use(project: Path, study: str, *, cwd: Path, trials: int) -> None:
    """Go on with the study, and use every command that writes."""
    sweep("run", study, "--set", f"budget.trials={trials}", cwd=cwd)
    assert "logged to MLflow" in sweep("report", "toy", cwd=cwd)
    sweep("sync", "toy", cwd=cwd)
    assert Path(sweep("best", "toy", cwd=cwd).strip()).resolve().is_relative_to(project.resolve())
    assert list((project / "a/b/mlartifacts").rglob("report.html"))


def test_a_copy_goes_on_by_itself_also_as_a_git_project_and_under_another_name(original: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(original, copy, symlinks=True)
    (copy / ".git").mkdir()
    use(copy, "a/b/study.yaml", cwd=copy, trials=3)
    renamed = copy.rename(tmp_path / "renamed")
    link = tmp_path / "link"
    link.symlink_to(renamed)
    use(renamed, "study.yaml", cwd=link / "a/b", trials=4)
    assert json.loads(sweep("show", "toy", "--json", cwd=link))["trials"][3]["number"] == 3
