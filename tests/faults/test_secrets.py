"""A password in the storage's URL and a token in the environment, over a whole study on a real PostgreSQL server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

import toys
from making import sweep
from postgres import postgres

pytestmark = [pytest.mark.real, pytest.mark.slow]
PASSWORD, TOKEN = "pass/w@rd-5f6c1e", "opaque-77aa88bb99cc00dd"
SECRETS = (PASSWORD, quote(PASSWORD, safe=""), TOKEN)

STUDY = """
name: secretive
task:
  type: text-classification
  model: {model}
  data: {{train: train.csv, validation: validation.csv}}
  metrics: [accuracy]
training: {{num_train_epochs: 2, logging_steps: 1, use_cpu: true}}
objective: {{metric: eval_loss, direction: minimize}}
space:
  learning_rate: {{low: 1e-4, high: 2e-2, log: true}}
sampler: {{type: random, seed: 3}}
baseline: {{learning_rate: 1e-3}}
budget: {{trials: 3}}
confirm: {{top: 1, seeds: 3}}
backend: {{parallel: 2}}
storage: {storage}
tracking: {{register: secretive-model}}
"""


@dataclass(frozen=True)
class Written:
    """Everything that commands of one study said and left behind, the study file itself left out."""

    said: dict[str, str]
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Written:
    home = tmp_path_factory.mktemp("secretive")
    (home / "pyproject.toml").touch()
    for seed, split in enumerate(("train", "validation")):
        toys.tiny_csv(home / f"{split}.csv", 48, seed=seed)
    before = set(home.rglob("*"))
    commands = {
        "check": ("check", "study.yaml"),
        "check --json": ("check", "study.yaml", "--json"),
        "check --probe": ("check", "study.yaml", "--probe", "--json"),
        "run": ("run", "study.yaml"),
        "show": ("show", "study.yaml", "--all"),
        "report": ("report", "study.yaml"),
        "best": ("best", "study.yaml", "--export", "out"),
        "sync": ("sync", "study.yaml"),
        "list": ("list",),
    }
    with postgres(PASSWORD) as url:
        (home / "study.yaml").write_text(STUDY.format(model=tiny_bert, storage=url))
        said = {}
        for name, words in commands.items():
            process = sweep(*words, cwd=home, env={**os.environ, "SOME_SERVICE_TOKEN": TOKEN})
            said[name], _ = process.communicate(timeout=600)
            assert process.returncode == 0, said[name]
    process = sweep("show", "study.yaml", cwd=home)
    said["the server is away"], _ = process.communicate(timeout=600)
    assert process.returncode == 2
    files = {*home.rglob("*")} - before - {home / "study.yaml"}
    return Written(said, {str(path.relative_to(home)): path.read_bytes() for path in files if path.is_file()})


def test_what_was_looked_through_is_all_there_is(written: Written) -> None:
    names = {Path(name).name for name in written.files}
    expected = {
        "report.html",
        "train.py",
        "README.md",
        "study.json",
        "console.log",
        "warm.log",
        "mlflow.db",
        "study.yaml",
    }
    assert expected <= names
    assert any(b"storage" in content for name, content in written.files.items() if name.endswith("study/study.yaml"))


def test_no_secret_is_in_any_file(written: Written) -> None:
    found = [
        (name, secret) for secret in SECRETS for name, content in written.files.items() if secret.encode() in content
    ]
    assert found == []


def test_no_secret_is_said_by_any_command(written: Written) -> None:
    assert [(name, secret) for secret in SECRETS for name, text in written.said.items() if secret in text] == []
