"""``sweep tune``: what it plans of made data, what it writes, and that it never writes over anything."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import toys
from sweepkit.check import Checked
from sweepkit.check.study_file import load_study
from sweepkit.cli import app, writing
from sweepkit.driver.forecast import Forecast, Host, Largest, forecast
from sweepkit.trial.first_steps import Measured

ONE = Measured(
    overhead_seconds=1.0,
    step_seconds=0.05,
    evaluation_seconds=0.5,
    saving_seconds=0.1,
    steps=60,
    evaluations=4,
    measured_steps=9,
    best_bytes=10,
    last_bytes=10,
)


@pytest.fixture
def measured(project: Path, monkeypatch: pytest.MonkeyPatch) -> list[Measured]:
    """Stand in for the probe: nothing is trained, and every trial takes as long as the list says."""
    steps = [ONE]

    def probed(checked: Checked) -> Forecast:
        study = checked.study
        study.place.folder.mkdir(parents=True, exist_ok=True)
        study.place.data_json.write_text(json.dumps({"rows": {"train": 160, "validation": 40}}))
        host = Host(slots=2, start_seconds=5.0, data_bytes=0.0)
        return forecast(study, Largest(hyperparameters={}, peak_memory_mb=1.0), steps, host)

    monkeypatch.setattr(writing, "run_probe", probed)
    return steps


@pytest.fixture
def reviews(project: Path) -> Path:
    """Return a project with ``reviews.csv`` and a folder that looks like a model."""
    (project / "tiny").mkdir()
    (project / "tiny/config.json").write_text('{"model_type": "bert"}')
    return toys.tiny_csv(project / "reviews.csv", rows=200, columns=("review", "stars"))


def tune(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["tune", *arguments, "--no-run"])


def test_the_plan_is_said_written_and_checked(reviews: Path, measured: list[Measured]) -> None:
    made = tune("reviews.csv", "--model", "tiny", "--minutes", "10")
    assert made.exception is None and made.exit_code == 0, made.exception
    assert "review as text, stars as label (2 different values: ham, spam)" in made.output
    assert "up to 60 trials" in made.output and "ready to run" in made.output
    study = load_study("reviews-tuned/study.yaml").study
    assert study.task.options["text"] == "review" and study.task.options["label"] == "stars"
    assert (study.training["num_train_epochs"], study.training["eval_steps"]) == (10, 0.25)
    assert study.baseline == {
        "learning_rate": 5e-5,
        "weight_decay": 0.0,
        "warmup_steps": 0.0,
        "per_device_train_batch_size": 8,
    }
    assert study.confirm is not None and (study.confirm.top, study.confirm.seeds) == (2, 3)
    assert study.budget.hours is not None and study.budget.hours < 10 / 60
    assert sorted(path.name for path in Path("reviews-tuned").iterdir()) == ["study.yaml"]


def test_the_same_command_goes_on_and_another_is_refused(reviews: Path, measured: list[Measured]) -> None:
    tune("reviews.csv", "--model", "tiny", "--set", "seed_per_trial=true")
    file = Path("reviews-tuned/study.yaml")
    written = file.read_text()
    for same in (["--model", "./tiny"], [], ["--minutes", "30"], ["--set", "seed_per_trial=true"]):
        again = tune("reviews.csv", *same)
        assert again.exit_code == 0 and "resuming reviews-tuned/study.yaml" in again.output
    toys.tiny_csv(Path("others/reviews.csv"), rows=20)
    for other in (["reviews.csv", "--minutes", "5"], ["reviews.csv", "--kind", "causal-lm"], ["others/reviews.csv"]):
        refused = tune(*other)
        assert refused.exit_code != 0 and "was planned by: sweep tune" in str(refused.exception)
    assert file.read_text() == written


def test_an_interruption_of_the_plan_ends_with_130_and_writes_nothing(
    reviews: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(checked: Checked) -> Forecast:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "run_probe", interrupted)
    made = tune("reviews.csv", "--model", "tiny")
    assert made.exit_code == 130 and "no study was written" in made.output
    assert not Path("reviews-tuned").exists()


def test_nothing_is_written_over(reviews: Path, measured: list[Measured]) -> None:
    Path("mine").mkdir()
    Path("mine/study.yaml").write_text("name: mine\n")
    assert "is not overwritten" in str(tune("reviews.csv", "--model", "tiny", "--name", "mine").exception)
    Path("mine/study.yaml").rename("mine/notes.yaml")
    assert "is not overwritten" in str(tune("reviews.csv", "--model", "tiny", "--name", "mine").exception)
    assert "cannot name a study" in str(tune("reviews.csv", "--model", "tiny", "--name", "my study").exception)
    assert [path.name for path in Path("mine").iterdir()] == ["notes.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reviews.cvs", "--model", "tiny"], "DATA: there is no file or folder reviews.cvs; did you mean reviews.csv?"),
        (["reviews.csv", "--model", "./tinny"], "--model: there is no file or folder ./tinny; did you mean tiny?"),
        (["reviews.csv", "--kind", "text-clasification"], "--kind: there is no kind text-clasification"),
        (["reviews.csv"], "the default of text-classification, is not in the cache while HF_HUB_OFFLINE is set"),
        (["reviews.csv", "--minutes", "0"], "--minutes: expected a number above 0, got 0"),
        (["reviews.csv", "--model", "tiny", "--minutes", "0.2"], "; give it --minutes 1, a smaller --model"),
        (["reviews.csv", "--model", "tiny", "--set", "training.learning_rat=1"], "training.learning_rat: "),
        (
            ["reviews.csv", "--model", "tiny", "--set", "task.label=star"],
            "there is no column star; did you mean stars?",
        ),
        (["raw.csv", "--model", "tiny"], "--set 'task.text=column2' --set 'task.label=column1'"),
        (["gaps.csv", "--model", "tiny"], "task.data: 1 of 9 rows of train have no label, the first is row 9"),
    ],
)
def test_what_cannot_be_planned_is_said_and_leaves_nothing(
    reviews: Path, measured: list[Measured], arguments: list[str], message: str
) -> None:
    Path("raw.csv").write_text("1,so that was what they all of them said\n0,no\n1,yes\n")
    Path("gaps.csv").write_text("text,label\n" + "free prize,spam\nsee you,ham\n" * 4 + "who is there,\n")
    made = tune(*arguments)
    assert message in str(made.exception)
    assert not list(Path().glob("*-tuned*/*"))


def test_what_is_set_by_hand_is_in_the_study_and_wins(reviews: Path, measured: list[Measured]) -> None:
    sets = [
        "task.max_length=32",
        "training.max_steps=8",
        "budget.trials=4",
        "space.learning_rate={low: 1e-5, high: 1e-4}",
    ]
    made = tune("reviews.csv", "--model", "tiny", *(word for text in sets for word in ("--set", text)))
    assert made.exit_code == 0, made.exception
    study = load_study("reviews-tuned/study.yaml").study
    assert (study.task.options["max_length"], study.training["max_steps"], study.budget.trials) == (32, 8, 4)
    assert study.space["learning_rate"].low == 1e-5


def test_a_baseline_outside_of_what_is_set_is_refused_before_anything_is_written(
    reviews: Path, measured: list[Measured]
) -> None:
    made = tune("reviews.csv", "--model", "tiny", "--set", "space.learning_rate={low: 1e-4, high: 1e-3}")
    assert "baseline" in str(made.exception) and not Path("reviews-tuned").exists()


def test_long_evaluations_and_little_time_shorten_trials(reviews: Path, measured: list[Measured]) -> None:
    measured[:] = [replace(ONE, step_seconds=1.0)]
    made = tune("reviews.csv", "--model", "tiny", "--minutes", "7")
    assert made.exit_code == 0, made.exception
    study = load_study("reviews-tuned/study.yaml").study
    assert study.training["num_train_epochs"] == 1 and (study.budget.trials or 0) >= 8


@pytest.mark.parametrize(
    ("files", "data", "expected"),
    [
        ("train.csv dev.csv test.csv", "box", {"train": "train.csv", "validation": "dev.csv", "test": "test.csv"}),
        ("training.csv valid.csv", "box", {"train": "training.csv", "validation": "valid.csv"}),
        ("train-0-of-2.csv train-1-of-2.csv", "box", {"train": ["train-0-of-2.csv", "train-1-of-2.csv"]}),
        ("all.csv", "box", {"path": "all.csv"}),
        ("all.csv", "box/all.csv", {"path": "all.csv"}),
    ],
)
def test_folders_are_read_by_split(
    reviews: Path, measured: list[Measured], files: str, data: str, expected: dict[str, Any]
) -> None:
    for name in files.split():
        toys.tiny_csv(Path("box") / name, rows=40)
    made = tune(data, "--model", "tiny", "--name", "tuned")
    assert made.exit_code == 0, made.exception
    named = {
        split: [f"../box/{each}" for each in name] if isinstance(name, list) else f"../box/{name}"
        for split, name in expected.items()
    }
    assert load_study("tuned/study.yaml").study.task.options["data"] == named


def test_other_separators_and_conll_files_are_noticed(reviews: Path, measured: list[Measured]) -> None:
    Path("semi.csv").write_text("text;label\n" + "".join(f"a free prize {n};{n % 2}\n" for n in range(20)))
    assert tune("semi.csv", "--model", "tiny").exit_code == 0
    assert load_study("semi-tuned/study.yaml").study.task.options["data"]["separator"] == ";"
    Path("tabs.csv").write_text("text\tlabel\n" + "".join(f"a, free, prize {n}\t{n % 2}\n" for n in range(20)))
    assert tune("tabs.csv", "--model", "tiny").exit_code == 0
    assert load_study("tabs-tuned/study.yaml").study.task.options["data"]["format"] == "tsv"
    Path("names.txt").write_text("Anna B-PER\nwent O\nhome O\n\nBen B-PER\nate O\n\n" * 20)
    found = tune("names.txt", "--model", "tiny")
    assert "token-classification" in found.output or "seqeval" in str(found.exception)


def test_a_folder_of_images_is_recognised(project: Path, measured: list[Measured]) -> None:
    from PIL import Image

    for n in range(8):
        folder = Path("pets") / ("cat", "dog")[n % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (n, n, n)).save(folder / f"{n}.png")
    Path("vit").mkdir()
    Path("vit/config.json").write_text('{"model_type": "vit"}')
    made = tune("pets", "--model", "vit")
    assert made.exit_code == 0, made.exception
    assert "image-classification: image as image, label as label (2 different values: cat, dog)" in made.output


@pytest.mark.real
def test_a_table_is_tuned_by_one_command(project: Path, tiny_bert: Path) -> None:
    toys.tiny_csv(project / "reviews.csv", rows=64, columns=("review", "stars"))
    sets = ["training.max_steps=4", "budget.trials=2", "confirm=null", "tracking.uri=none"]
    sets.append("space.per_device_train_batch_size={choices: [8]}")
    words = [word for text in sets for word in ("--set", text)]
    command = [sys.executable, "-m", "sweepkit", "tune", "reviews.csv", "--model", str(tiny_bert), *words]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "budget      up to 60 trials" in ran.stdout and "reviews-tuned  done  2 trials" in ran.stdout
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "resuming reviews-tuned/study.yaml" in again.stdout, again.stderr
    assert not list(project.glob("reviews-tuned/.*"))
