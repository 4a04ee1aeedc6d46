"""The store of a project that was copied or moved: its artifacts go where the project is now.

MLflow records the absolute address of every experiment's, run's and model's artifacts and has no call to change one, so that a
copy would write into the original. The tables, columns and files below are MLflow's own; a test holds them to the installed
version.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of MLflow's database that hold addresses of artifacts."""
META = "meta.yaml"
"""File of MLflow's file store that holds them."""


def old_address(location: str, name: str, root: Path) -> str | None:
    """Return the address that ``root`` had when the artifact folder ``name`` in it was recorded; None where it is the same."""
    parsed, (old, _, last) = urlsplit(location), location.rpartition("/")
    there = Path(unquote(parsed.path)).parent
    ours = parsed.scheme in ("", "file") and last == name and there.name == root.name
    return old if ours and there.resolve() != root.resolve() else None


def move_database(file: Path, old: str, new: str) -> None:
    """Replace the beginning ``old`` of every address in an SQLite store."""
    with closing(sqlite3.connect(file, timeout=60)) as connection, connection:
        for table, column in COLUMNS:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (f"{new}/", len(old) + 2, len(old) + 1, f"{old}/"),
            )


def move_files(root: Path, old: str, new: str) -> None:
    """Replace the beginning ``old`` of every address in a file store."""
    for file in root.rglob(META):
        text = file.read_text(encoding="utf-8")
        if f"{old}/" in text:
            file.write_text(text.replace(f"{old}/", f"{new}/"), encoding="utf-8")
