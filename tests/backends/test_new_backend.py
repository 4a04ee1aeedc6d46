"""A backend is a class and a line in the table: check, schema, help and a whole study know it from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from toys import TOY_TASKS

pytestmark = pytest.mark.real

LINE = """
from sweepkit.study import backends

backends.BACKENDS["one"] = backends.BackendKind("one_at_a_time:OneAtATime", "one trial at a time")
"""


def sweep(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process that has the line, as all that it starts do."""
    (project / "sitecustomize.py").write_text(LINE)
    path = os.pathsep.join([str(project), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "sweepkit", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=project,
        timeout=600,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_a_new_backend_is_one_class_and_one_line(project: Path) -> None:
    (project / "study.yaml").write_text(
        f"name: toy\ntask: {{path: '{TOY_TASKS}:Quadratic'}}\ntraining: {{use_cpu: true}}\n"
        "objective: {metric: eval_score, direction: maximize}\n"
        "space: {learning_rate: {low: 1e-4, high: 1e-2, log: true}}\n"
        "budget: {trials: 2}\ntracking: {uri: none}\nbackend: {type: one}\n"
    )
    assert sweep(project, "check", "study.yaml").returncode == 0
    assert '"one"' in sweep(project, "schema").stdout
    assert "one trial at a time" in " ".join(sweep(project, "run", "--help").stdout.replace("│", " ").split())
    ran = sweep(project, "run", "study.yaml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "one at a time" in ran.stdout + ran.stderr
    shown = json.loads(sweep(project, "show", "toy", "--json").stdout)
    assert [trial["ending"] for trial in shown["trials"]] == ["complete", "complete"]
    wrong = (project / "study.yaml").read_text().replace("type: one", "type: two")
    (project / "study.yaml").write_text(wrong)
    refused = sweep(project, "check", "study.yaml")
    assert (refused.returncode, refused.stderr) == (
        2,
        "study.yaml:8 backend.type: expected optuna, ray or one, got 'two' (text)\n",
    )
