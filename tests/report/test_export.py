"""What ``sweep best --export`` writes: a model, its card, and a script that trains it to the same value again."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import toys
from making import toy_study
from sweepkit.driver.run import run
from sweepkit.report import export as exporting
from sweepkit.report.answer import Answer
from sweepkit.report.export import export
from sweepkit.report.rows import read
from sweepkit.study.errors import InputError, StudyNotFound
from sweepkit.study.study import StudyData
from sweepkit.tasks import by_value
from sweepkit.trial.trial import Trial, Turn, read_spec

pytestmark = pytest.mark.real

OWN = (
    "from beside import HALF, Quadratic\n\n\nclass Mine(Quadratic):\n"
    '    """Quadratic with an option of its own."""\n\n    half: float = HALF\n'
)
CELL = "from sweepkit.tasks.text import TextClassification\n\n\nclass Cell(TextClassification):\n    twice: int = 2\n"
LOSS = {"metric": "eval_loss", "direction": "minimize"}
RATE = {"low": 1e-3, "high": 1e-2, "log": True}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> StudyData:
    """A study of a task file that imports another one beside it, whose batch of 8 does not fit into memory."""
    home = tmp_path_factory.mktemp("own")
    (home / "pyproject.toml").touch()
    shutil.copyfile(toys.TOY_TASKS, home / "toy_tasks.py")
    (home / "beside.py").write_text("from toy_tasks import Quadratic\n\nHALF = 0.5\n")
    (home / "mine.py").write_text(OWN)
    study = toy_study(
        home,
        task={"path": "mine.py:Mine", "out_of_memory_above": 4},
        space={"learning_rate": RATE, "task.x": {"low": 0.0, "high": 1.0}, "model.dropout": {"low": 0.1, "high": 0.3}},
        objective=LOSS,
        budget={"trials": 2},
        training={"num_train_epochs": 2},
    )
    assert run(study).status == "done"
    return study


@pytest.fixture(scope="module")
def by_cell(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> StudyData:
    """A study of a task made in a notebook's cell, with a LoRA adapter."""
    home = tmp_path_factory.mktemp("cell")
    (home / "pyproject.toml").touch()
    for seed, (split, rows) in enumerate({"train": 48, "validation": 16}.items()):
        toys.tiny_csv(home / f"{split}.csv", rows, seed=seed)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(CELL, names)
    (home / "task.pickle").write_bytes(by_value.dumps(names["Cell"]))
    study = toy_study(
        home,
        task={
            "path": None,
            "pickle": "task.pickle",
            "model": str(tiny_bert),
            "data": {"train": "train.csv", "validation": "validation.csv"},
            "metrics": ["accuracy"],
        },
        space={"learning_rate": RATE, "peft.r": {"choices": [2, 4]}},
        objective={**LOSS, "value": "mean(2)"},
        budget={"trials": 1},
    )
    assert run(study).status == "done"
    return study


def exported(study: StudyData, folder: Path) -> tuple[Trial, dict[str, Any]]:
    """Return a study's best trial, exported to a folder, and what its script printed last."""
    rows = read(study)
    best = Answer(study, rows).best
    assert best is not None
    export(study, rows, best, folder)
    trained = subprocess.run(
        [sys.executable, "train.py"], cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    assert trained.returncode == 0, trained.stderr
    found: dict[str, Any] = json.loads(trained.stdout.strip().splitlines()[-1])
    return best, found


@pytest.mark.slow
def test_a_task_of_ones_own_trains_to_the_same_value_with_the_batch_that_fitted(own: StudyData, tmp_path: Path) -> None:
    best, found = exported(own, tmp_path / "out")
    assert found == {"metric": "eval_loss", "value": pytest.approx(best.value, abs=1e-9), "seed": own.seed}
    assert (tmp_path / "out" / "retrained" / "model.safetensors").exists()


@pytest.mark.slow
def test_a_task_by_value_with_an_adapter_trains_to_the_same_value(by_cell: StudyData, tmp_path: Path) -> None:
    best, found = exported(by_cell, tmp_path / "out")
    assert found["value"] == pytest.approx(best.value, abs=1e-9)
    assert (tmp_path / "out" / "retrained" / "adapter_config.json").exists()


def test_the_folder_holds_the_model_the_values_the_requirements_and_the_task(own: StudyData, tmp_path: Path) -> None:
    rows = read(own)
    written = export(own, rows, rows[1], tmp_path / "out")
    names = ["model", "hyperparameters.yaml", "README.md", "requirements.txt", "train.py", "task.py"]
    assert [path.name for path in written] == names
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(names)
    assert not (tmp_path / "out" / "model" / "training_args.bin").exists()
    values = YAML(typ="safe").load((tmp_path / "out" / "hyperparameters.yaml").read_text())
    assert values == {
        "study": "toy",
        "trial": 1,
        "seed": own.seed,
        "searched": dict(rows[1].params),
        "training": {
            "eval_strategy": "epoch",
            "logging_steps": 10,
            "logging_nan_inf_filter": False,
            "use_cpu": True,
            "num_train_epochs": 2,
            "learning_rate": rows[1].params["learning_rate"],
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
        },
        "model": {"dropout": rows[1].params["model.dropout"]},
        "task": {"type": "mine.py:Mine", "out_of_memory_above": 4, "x": rows[1].params["task.x"]},
    }
    required = (tmp_path / "out" / "requirements.txt").read_text().splitlines()
    assert f"sweepkit=={version('sweepkit')}" in required
    assert [line for line in required[1:] if not re.fullmatch(r"[\w-]+==[\w.]+", line)] == []


def test_the_card_says_what_was_reached_and_that_the_script_needs_sweepkit(own: StudyData, tmp_path: Path) -> None:
    rows = read(own)
    best = Answer(own, rows).best
    assert best is not None
    export(own, rows, best, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| `eval_loss` (minimize, best) | {best.value:.4f} | – |" in card
    assert "The best of 2 trials (2 complete), on the validation split." in card
    assert "needs sweepkit" in card and "pip install -r requirements.txt" in card
    assert "train 32, validation 8, test 8 rows" in card


def test_a_trial_of_several_ranks_is_trained_again_by_as_many(
    own: StudyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read(own)
    spec = read_spec(own.place.trial(1))
    assert spec is not None
    monkeypatch.setattr(exporting, "read_spec", lambda folder: replace(spec, ranks=2))
    export(own, rows, rows[1], tmp_path / "out")
    script, card = ((tmp_path / "out" / name).read_text() for name in ("train.py", "README.md"))
    assert "\n    torchrun --nproc-per-node 2 train.py [--seed N]" in script
    assert "if arguments.world_size != 2:" in script
    assert "\ntorchrun --nproc-per-node 2 train.py\n" in card
    compile(script, "train.py", "exec")


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(own: StudyData, tmp_path: Path) -> None:
    rows = read(own)
    turn = Turn(evaluation=1, step=4, value=0.5, hyperparameters={"learning_rate": 1e-3})
    with pytest.raises(InputError, match=r"along a schedule.*sweep try toy --trial 0"):
        export(own, rows, replace(rows[0], schedule=(turn,)), tmp_path / "out")
    with pytest.raises(StudyNotFound, match="trial 7 of toy has no checkpoint here"):
        export(own, rows, replace(rows[0], number=7), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(InputError, match="exists and is not empty"):
        export(own, rows, rows[0], tmp_path / "full")
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine"]
