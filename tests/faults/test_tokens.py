"""Tokens in the environment, in options, in URLs, in a git remote and in what a task prints and raises, over a whole study.

Whatever the study writes and says is searched for them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import pytest

from making import sweep
from toys import TOY_TASKS

pytestmark = [pytest.mark.real, pytest.mark.slow]

ENVIRONMENT, OPTION, SHORT, REMOTE = "opaque-77aa88bb99cc00dd", "kEy+/5f6c1e-option=", "hunter2", "tok3nOfAG1tRem0te"
PASSWORD, QUERY = "p4ss/w@rd", "sIgnAture99x"
SECRETS = (ENVIRONMENT, OPTION, SHORT, REMOTE, PASSWORD, quote(PASSWORD, safe=""), QUERY)

STUDY = f"""
name: leaky
question: Does {ENVIRONMENT} leak?
task:
  path: task.py:Leaky
  api_key: {OPTION}
  service: {{password: {SHORT}, retries: 3}}
  endpoint: https://ann:{quote(PASSWORD, safe="")}@host/x?sig={QUERY}
training: {{num_train_epochs: 2, use_cpu: true}}
objective: {{metric: eval_score, direction: maximize}}
space:
  learning_rate: {{low: 1e-4, high: 1e-2, log: true}}
sampler: {{type: random, seed: 1}}
baseline: {{learning_rate: 1e-3}}
budget: {{trials: 3}}
backend: {{parallel: 1}}
"""
TASK = '''
import logging, os, sys
from hashlib import sha256
from toy_tasks import Quadratic

class Leaky(Quadratic):
    """Prints, logs and raises what it should keep to itself."""
    api_key: str
    service: dict
    endpoint: str

    def model_init(self, **config):
        token = os.environ["SERVICE_TOKEN"]
        # the real values, which only their digests tell here
        given = (token, self.api_key, self.service["password"], self.endpoint)
        found = [sha256(each.encode()).hexdigest()[:12] for each in given]
        assert found == %r, found
        print("key", self.api_key, "and", token)
        print("password:", self.service["password"], "at", self.endpoint, file=sys.stderr)
        logging.getLogger("leaky").warning("calling %%s with %%s", self.endpoint, self.api_key)
        if self._spec.number == 1:
            raise ConnectionError("401 for " + self.endpoint + " with " + " or ".join(given))
        return super().model_init(**config)
'''


@dataclass(frozen=True)
class Written:
    """What the commands of a study said and left behind; the files that a person wrote are left out."""

    said: dict[str, str]
    files: dict[str, bytes]
    home: Path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    home = tmp_path_factory.mktemp("leaky")
    (home / "pyproject.toml").touch()
    (home / "study.yaml").write_text(STUDY)
    url = f"https://ann:{quote(PASSWORD, safe='')}@host/x?sig={QUERY}"
    digests = [sha256(each.encode()).hexdigest()[:12] for each in (ENVIRONMENT, OPTION, SHORT, url)]
    (home / "task.py").write_text(TASK % digests)
    shutil.copy(TOY_TASKS, home / "toy_tasks.py")
    for words in ("init -q", f"remote add origin https://{REMOTE}@host/ann/leaky.git", "add pyproject.toml"):
        subprocess.run(["git", *words.split()], check=True, cwd=home)
    before = set(home.rglob("*"))
    commands = {
        "check": (0, "check", "study.yaml"),
        "check --json": (0, "check", "study.yaml", "--json"),
        "a wrong value": (2, "check", "study.yaml", "--set", f"task.api_key=[{OPTION}]"),
        "run": (1, "run", "study.yaml"),
        "show": (0, "show", "leaky", "--all"),
        "show --json": (0, "show", "leaky", "--json"),
        "best --json": (0, "best", "leaky", "--json"),
        "report": (0, "report", "leaky"),
        "best --export": (0, "best", "leaky", "--export", "out"),
        "sync": (0, "sync", "study.yaml"),
        "list --json": (0, "list", "--json"),
    }
    said = {}
    environment = {**os.environ, "SERVICE_TOKEN": ENVIRONMENT}
    for name, (code, *words) in commands.items():
        process = sweep(*words, cwd=home, env=environment)
        said[name], _ = process.communicate(timeout=600)
        assert process.returncode == code, (name, said[name])
    (home / "study.yaml").rename(home / "elsewhere.txt")
    process = sweep("run", "leaky", cwd=home, env=environment)
    said["without its file"], _ = process.communicate(timeout=600)
    assert process.returncode == 2
    mine = {*home.rglob("*")} - before - {home / "elsewhere.txt"}
    files = {
        str(path.relative_to(home)): path.read_bytes() for path in mine if path.is_file() and ".git/" not in str(path)
    }
    return Written(said, files, home)


def test_what_was_looked_through_is_all_there_is(written: Written) -> None:
    names = {Path(name).name for name in written.files}
    assert {"report.html", "train.py", "README.md", "study.json", "spec.json", "console.log", "mlflow.db"} <= names
    assert any(name.startswith("mlartifacts/") for name in written.files)
    assert "1 failed" in written.said["run"], "the trial whose exception has the tokens; the others got the real values"
    console = b"".join(content for name, content in written.files.items() if name.endswith("console.log"))
    assert b"key *** and ***" in console and b"password: *** at https://ann:***@host" in console
    assert b"ConnectionError: 401 for https://ann:***@host" in console


def test_no_token_is_in_any_file(written: Written) -> None:
    found = [(name, secret) for secret in SECRETS for name, text in written.files.items() if secret.encode() in text]
    assert found == []


def test_no_token_is_said_by_any_command(written: Written) -> None:
    assert [(name, secret) for secret in SECRETS for name, text in written.said.items() if secret in text] == []


def test_a_study_whose_file_is_gone_says_which_secret_it_lacks(written: Written) -> None:
    assert written.said["without its file"].splitlines()[-1].startswith("error: task.")
    assert (
        "a secret is not recorded with the study; give the study's file instead of its name"
        in (written.said["without its file"])
    )


def test_the_exported_script_takes_secrets_from_the_environment(written: Written) -> None:
    script = written.files["out/train.py"].decode()
    assert "TASK['api_key'] = os.environ[\"API_KEY\"]" in script
    assert "TASK['service']['password'] = os.environ[\"SERVICE_PASSWORD\"]" in script
    compile(script, "train.py", "exec")


def test_json_stays_json(written: Written) -> None:
    for name in ("check --json", "show --json", "best --json", "list --json"):
        json.loads(written.said[name])


def test_files_of_the_study_are_its_owners_alone_where_they_hold_its_text(written: Written) -> None:
    names = ("study.json", "spec.json", "console.log", "events.jsonl", "inspect.log", "warm.log")
    own = [path for path in (written.home / "runs").rglob("*") if path.name in names]
    assert own and {oct(path.stat().st_mode & 0o777) for path in own} == {"0o600"}
