"""Runs commands of the command line, in this process or in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys

from typer.testing import CliRunner, Result

from sweepkit.cli import app


def sweep(*arguments: str) -> Result:
    """Run a command in this process; the error it ends with, if any, is in ``exception``."""
    return CliRunner().invoke(app, arguments)


def typed(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a person does, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "sweepkit", *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, **environment},
    )


def cpu_seconds(*arguments: str) -> tuple[float, str]:
    """Return the processor time of a command, however busy the machine is, and what it printed."""
    found = []
    for _ in range(3):
        before = os.times()
        done = typed(*arguments)
        after = os.times()
        assert done.returncode == 0
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        found.append((spent, done.stdout))
    return min(found)
