"""Where a study's runs lie is decided once, and found again whatever becomes of the folders around it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from sweepkit.check.find import find_run, stored_study, study_folders, study_names
from sweepkit.study.errors import StudyNotFound
from sweepkit.study.paths import Place, is_name, project_root
from sweepkit.study.study import StudyData

STUDY = {"name": "toy", "task": {"type": "causal-lm"}, "objective": {"metric": "eval_loss", "direction": "minimize"}}


def ran(home: Path, name: str = "toy", root: Path | None = None) -> Path:
    """Record a study that ran in ``home``; return its folder."""
    home.mkdir(parents=True, exist_ok=True)
    place = Place.of(name, home) if root is None else Place(home, root, name)
    place.folder.mkdir(parents=True, exist_ok=True)
    plain = StudyData.model_validate({**STUDY, "name": name}).model_dump(mode="json", by_alias=True)
    record = {"id": "1", "created": "2026-01-01T00:00:00", "study": plain, "home": os.path.relpath(home, place.root)}
    place.study_json.write_text(json.dumps(record))
    return place.folder


def test_a_study_outside_of_a_project_stays_where_it_ran_after_git_init(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b"
    folder = ran(home)
    assert folder == home / "runs" / "toy"
    (tmp_path / ".git").mkdir()
    (tmp_path / "a" / "pyproject.toml").touch()
    assert Place.of("toy", home).folder == folder
    assert Place.of("toy", home / "sub").root == home
    assert project_root(tmp_path / "other") == tmp_path


def test_a_project_that_begins_between_runs_and_study_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    home = tmp_path / "a" / "b"
    folder = ran(home)
    assert folder == tmp_path / "runs" / "toy"
    (tmp_path / "a" / ".git").mkdir()
    assert Place.of("toy", home).folder == folder
    assert Place.of("new", home).root == tmp_path / "a"
    (tmp_path / ".git").rmdir()
    assert Place.of("toy", home).folder == folder


def test_another_folders_study_of_the_same_name_is_another_study(tmp_path: Path) -> None:
    ran(tmp_path / "mine", root=tmp_path)
    (tmp_path / "theirs" / ".git").mkdir(parents=True)
    assert Place.of("toy", tmp_path / "theirs").root == tmp_path / "theirs"


def test_of_two_places_the_last_used_counts(tmp_path: Path) -> None:
    home = tmp_path / "a"
    older, newer = ran(home), ran(home, root=tmp_path)
    for seconds, folder in ((1, older), (2, newer)):
        os.utime(folder / "study.json", (seconds, seconds))
    assert Place.of("toy", home).folder == newer


@pytest.mark.parametrize("inside", [".", "a", "a/b", "a/b/sub"])
@pytest.mark.parametrize("change", ["nothing", "git init", "copied", "renamed", "linked"])
def test_a_study_is_found_from_above_and_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str, change: str
) -> None:
    top = tmp_path / "x"
    folder = ran(top / "a" / "b")
    (top / "a/b/sub").mkdir()
    moved = tmp_path / "y"
    if change == "git init":
        (top / ".git").mkdir()
    elif change == "copied":
        shutil.copytree(top, moved)
    elif change == "renamed":
        top.rename(moved)
    elif change == "linked":
        moved.symlink_to(top)
    here = moved if moved.exists() else top
    monkeypatch.chdir(here / inside)
    assert study_names() == ["toy"]
    found = find_run("toy").place
    assert (found.folder, found.home) == ((here / "a/b/runs/toy").resolve(), (here / "a/b").resolve())
    assert change in ("copied", "renamed") or found.folder == folder


def test_a_linked_folder_of_studies_is_looked_into_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran(tmp_path / "data" / "b")
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "link").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "up").symlink_to(tmp_path / "top")
    monkeypatch.chdir(tmp_path / "top")
    assert [folder.resolve() for folder in study_folders()] == [tmp_path / "data/b/runs/toy"]


def test_the_projects_own_study_comes_first_and_two_others_are_ambiguous(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git").mkdir()
    for home in ("old/a", "old/b"):
        ran(tmp_path / home, root=tmp_path / home)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyNotFound, match=r"there are 2 studies toy: .*old/a/runs/toy, .*old/b/runs/toy"):
        find_run("toy")
    assert find_run("old/b/runs/toy").place.root == tmp_path / "old" / "b"
    own = ran(tmp_path / "new", root=tmp_path)
    assert find_run("toy").place.folder == own
    assert stored_study(own).home == tmp_path / "new"


@pytest.mark.parametrize(
    ("text", "good"),
    [("a", True), ("a.b-c_1", True), ("a" * 100, True), ("a" * 101, False), ("", False), (".a", False), ("a\n", False)],
)
def test_a_name_is_one_rule_everywhere(text: str, good: bool) -> None:
    assert is_name(text) == good
    if good:
        StudyData.model_validate({**STUDY, "name": text})
    else:
        with pytest.raises(ValueError, match="name"):
            StudyData.model_validate({**STUDY, "name": text})
