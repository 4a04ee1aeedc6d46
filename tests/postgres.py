"""A real PostgreSQL server of a test's own, on a socket in a folder of its own. Knows no study."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from making import wait_until

BESIDE = {"checkpointer", "background writer", "walwriter"}
"""Processes that a PostgreSQL server starts once it accepts connections; they are the fixture's, not a test's."""


def _children(pid: int) -> set[str]:
    found: list[str] = []
    for child in psutil.Process(pid).children():
        try:
            found += child.cmdline()
        except psutil.Error:  # gone meanwhile
            continue
    return {name for name in BESIDE for word in found if name in word}


def binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs, from the path or from where Debian puts them."""
    found = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return Path(found).parent if found else (debian[-1].parent if debian else None)


@contextmanager
def postgres(password: str = "") -> Iterator[str]:
    """Start a server and yield its URL; with a password it lets nobody in without."""
    pytest.importorskip("psycopg", reason="psycopg is missing: pip install 'sweepkit[postgres]'")
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL's initdb is missing: apt-get install postgresql")
    # PostgreSQL refuses to run as root.
    as_user: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="sweepkit-pg-"))
    if os.getuid() == 0:
        other = next((user for user in pwd.getpwall() if user.pw_name in ("postgres", "nobody")), None)
        if other is None:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody: useradd postgres")
        os.chown(folder, other.pw_uid, other.pw_gid)
        as_user = {"user": other.pw_uid, "group": other.pw_gid}
    data = folder / "data"
    auth = "scram-sha-256" if password else "trust"
    make: list[str | Path] = [programs / "initdb", f"--auth={auth}", "--username=sweep", "--no-sync", "-D", data]
    if password:
        (folder / "password").write_text(password)
        make += ["--pwfile", folder / "password"]
    subprocess.run(make, check=True, capture_output=True, cwd=folder, **as_user)
    options = [
        "-c",
        "listen_addresses=",
        "-c",
        "autovacuum=off",
        "-c",
        "max_logical_replication_workers=0",
        "-c",
        f"unix_socket_directories={folder}",
        "-c",
        "fsync=off",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([programs / "postgres", "-D", data, *options], stderr=log, cwd=folder, **as_user)
    try:
        wait_until(lambda: _children(process.pid) >= BESIDE, 30, "PostgreSQL and all that stands beside it run")
        who = f"sweep:{quote(password, safe='')}" if password else "sweep"
        yield f"postgresql+psycopg://{who}@/postgres?host={folder}"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        shutil.rmtree(folder)
