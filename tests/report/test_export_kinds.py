"""The exported script trains the winner of each kind again, to the same value; a kind is a file and its line in KINDS."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

import toys
from sweepkit.check.study_file import load_study, read_study
from sweepkit.cli import app
from sweepkit.driver.run import Replacements, run_checked
from sweepkit.report.export import export
from sweepkit.report.rows import read
from sweepkit.tasks.kinds import KINDS, kind_class
from sweepkit.tasks.load import task_class
from toy_kind import ROWS

pytestmark = pytest.mark.real
PIPELINES = {
    "token-classification": "token-classification",
    "multi-label-classification": "text-classification",
    "seq2seq": "text-generation",
    "question-answering": "question-answering",
    "line": "tabular-regression",
}


@pytest.fixture(autouse=True)
def line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the toy kind: its line is all that sweepkit is told of it."""
    monkeypatch.setitem(KINDS, "line", "toy_kind:Line")  # type: ignore[arg-type]  # a dict


@pytest.mark.parametrize("kind", ROWS)
def test_a_kind_goes_from_new_to_the_exported_script(
    kind: str, project: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[kind]))
    model = toys.tiny_t5(project / "t5") if kind == "seq2seq" else tiny_bert
    made = CliRunner().invoke(app, ["new", "mine", "--kind", kind, "--data", "rows.jsonl", "--model", str(model)])
    assert made.exception is None, made.output
    file = project / "mine" / "study.yaml"
    template = kind_class(kind).template
    assert template is not None
    assert read_study(file).objective.metric == f"eval_{template.metric}"
    found = ["task.max_target_length=8"] if kind == "seq2seq" else []
    found += ["budget.trials=1", "tracking.uri=none", "training.use_cpu=true", "training.num_train_epochs=1"]
    checked = load_study(file, [*found, 'baseline={"learning_rate": 0.001}', "pruner.type=none"])
    replaced = Replacements(task=task_class(checked.study.task, checked.study.home))
    [row] = run_checked(checked, instead=replaced).rows
    export(checked.study, read(checked.study), row, project / "out")
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["train.py", "--output", str(project / "retrained")])
    runpy.run_path(str(project / "out" / "train.py"), run_name="__main__")
    printed = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert printed["value"] == pytest.approx(row.value, abs=1e-6)
    assert f"pipeline_tag: {PIPELINES[kind]}\n" in (project / "out" / "README.md").read_text()


def test_the_schema_and_the_help_know_a_new_kind_and_what_it_needs() -> None:
    schema = json.loads(CliRunner().invoke(app, ["schema"]).output)
    study = {
        "name": "mine",
        "objective": {"metric": "mse", "direction": "minimize"},
        "space": {"learning_rate": {"choices": [1e-3, 1e-2]}},
    }
    wrong = {
        kind: [
            error.message
            for error in jsonschema.Draft202012Validator(schema).iter_errors({**study, "task": {"type": kind}})
        ]
        for kind in ("line", "seq2seq")
    }
    assert wrong["line"] == []
    assert [name for name in ("model", "data") if f"'{name}' is a required property" in wrong["seq2seq"]] == [
        "model",
        "data",
    ]
    assert "### line" in CliRunner().invoke(app, ["schema", "--explain"]).output
