"""A store that was copied with its project names the folders of its new place, and nobody else's."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest

from sweepkit.trackers.mlflow.moved import COLUMNS, META, move_database, move_files, old_address


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_mlflow_still_has_the_columns_that_hold_addresses(empty_store: Path, table: str, column: str) -> None:
    with closing(sqlite3.connect(empty_store)) as connection:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    assert column in columns, f"mlflow {version('mlflow')} has no {table}.{column}"


def test_an_address_is_old_where_the_folder_of_the_same_name_lies_elsewhere(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "new place" / "mlartifacts", tmp_path / "old place" / "mlartifacts"
    root.mkdir(parents=True)
    (tmp_path / "link").symlink_to(root.parent)
    assert old_address(f"{elsewhere.as_uri()}/toy", "toy", root) == elsewhere.as_uri()
    assert old_address(f"{elsewhere}/toy", "toy", root) == str(elsewhere)
    same = (f"{root.as_uri()}/toy", f"{(tmp_path / 'link' / 'mlartifacts').as_uri()}/toy")
    others = (f"{elsewhere.as_uri()}/other", (tmp_path / "bucket" / "toy").as_uri(), "s3://bucket/mlartifacts/toy")
    assert [old_address(location, "toy", root) for location in (*same, *others)] == [None] * 5


def test_only_addresses_below_the_old_folder_move(tmp_path: Path, empty_store: Path) -> None:
    file = Path(shutil.copy(empty_store, tmp_path / "mlflow.db"))
    rows = [
        ("a", "file:///old/mlartifacts/a"),
        ("b", "file:///old/mlartifacts2/b"),
        ("c", "s3://x/file:///old/mlartifacts/c"),
    ]
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executemany("INSERT INTO experiments (name, artifact_location) VALUES (?, ?)", rows)
    move_database(file, "file:///old/mlartifacts", "file:///new/mlartifacts")
    with closing(sqlite3.connect(file)) as connection:
        found = dict(
            connection.execute("SELECT name, artifact_location FROM experiments WHERE name IN ('a', 'b', 'c')")
        )
    assert found == {**dict(rows), "a": "file:///new/mlartifacts/a"}


def test_a_file_store_moves_with_all_its_records(tmp_path: Path) -> None:
    for place in ("1", "1/run"):
        (tmp_path / place).mkdir()
        (tmp_path / place / META).write_text(f"artifact_location: file:///old/mlruns/{place}\nname: old\n")
    move_files(tmp_path, "file:///old/mlruns", "file:///new/mlruns")
    texts = [(tmp_path / place / META).read_text() for place in ("1", "1/run")]
    assert texts == [f"artifact_location: file:///new/mlruns/{place}\nname: old\n" for place in ("1", "1/run")]
