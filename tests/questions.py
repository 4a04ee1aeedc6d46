"""Answers in forks of one process what a check would ask a new child each time, which imports torch for ten seconds.

tests/check holds the new child itself to its promises.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweepkit.check.fields import facts

PROGRAM = """
import json, os, sys
import datasets, torch, transformers.trainer
from sweepkit.check.fields.child import answer

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    path, folder, questions = json.loads(line)
    if pid := os.fork():
        os.waitpid(pid, 0)
        answers.write("\\n")
        answers.flush()
        continue
    sys.path[:] = path
    os.chdir(folder)
    json.dump([answer(*question) for question in questions], answers)
    answers.flush()
    os._exit(0)
"""
in_new_child = facts._run_child
_running: list[subprocess.Popen[str]] = []


def in_fork(questions: Sequence[facts.Question]) -> Any:
    """Return what a new child would; one that a question ends is asked again in a new child, which says how."""
    if not _running:
        pipe = subprocess.PIPE
        command = [sys.executable, "-B", "-c", PROGRAM]
        _running.append(
            subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, cwd="/")
        )
    process = _running[0]
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps([sys.path, str(Path.cwd()), questions]) + "\n")
    process.stdin.flush()
    line = process.stdout.readline().strip()
    return json.loads(line) if line else in_new_child(questions)


def end() -> None:
    """End the process that is asked."""
    for process in _running:
        process.communicate()


def pids() -> list[int]:
    """The process that is asked, which may stay until the tests end."""
    return [process.pid for process in _running]
