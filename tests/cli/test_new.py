"""``sweep new DATA`` and ``sweep task``: from a folder with nothing but a file to a study that runs, or one that is named."""

from __future__ import annotations

import json
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import sweep
from sweepkit.check.find import find_study

COUNT = 48
DICE = random.Random(0)
TEXTS = [f"the film was {('dull', 'warm')[n % 2]} and {('sad', 'bright')[n % 2]} in scene {n}" for n in range(COUNT)]
MOODS = [("sour", "sweet")[n % 2] for n in range(COUNT)]
KIND = "text-classification"


def table(*columns: list[Any], head: str = "", mark: str = ",") -> str:
    rows = [mark.join(map(str, row)) for row in zip(*columns, strict=True)]
    return "\n".join([*([head] if head else []), *rows]) + "\n"


def pictures(file: Path) -> None:
    from PIL import Image

    for n in range(16):
        place = file / ("dark", "light")[n % 2] / f"{n}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (150 * (n % 2) + n,) * 3).save(place)


def nested() -> str:
    rows = [
        {"review": {"body": text, "mood": mood}, "id": n}
        for n, (text, mood) in enumerate(zip(TEXTS, MOODS, strict=True))
    ]
    return json.dumps({"shop": "books", "reviews": rows}, indent=1)


def pairs() -> str:
    rows = zip(TEXTS, TEXTS[1:], MOODS[1:], strict=False)
    return "".join(json.dumps({"sentence1": a, "sentence2": b, "same": mood}) + "\n" for a, b, mood in rows)


EIGHT: dict[str, tuple[Callable[[], str], str, dict[str, Any]]] = {
    "answers.csv": (
        lambda: table(range(7000, 7000 + COUNT), TEXTS, MOODS, head="Record No.,What did they say?,Mood (coded)"),  # type: ignore[arg-type]  # a range is a list here
        KIND,
        {"text": "What did they say?", "label": "Mood (coded)"},
    ),
    "tickets.csv": (lambda: table(TEXTS, MOODS), KIND, {"text": "column1", "label": "column2"}),
    "tweets.tsv": (
        lambda: table([f'"{text}' for text in TEXTS], MOODS, head="text\tsentiment", mark="\t"),
        KIND,
        {"text": "text", "label": "sentiment"},
    ),
    "dump.json": (nested, KIND, {"text": "review.body", "label": "review.mood"}),
    "couples.jsonl": (pairs, KIND, {"text": ["sentence1", "sentence2"], "label": "same"}),
    "names.txt": (
        lambda: "Anna B-PER\nwent O\nto O\nOslo B-LOC\n\nBen B-PER\nate O\n\n" * 20,
        "token-classification",
        {},
    ),
    "photos": (lambda: "", "image-classification", {}),
    "prices.csv": (
        lambda: table(
            TEXTS, [f"{100 + 50 * (n % 2) + n / 7:.2f}" for n in range(COUNT)], head="description,asking price"
        ),
        "text-regression",
        {"text": "description", "label": "asking price"},
    ),
}
"""File of a newcomer → its content, and the kind and columns that are found."""


def written(project: Path, name: str, model: Path | str) -> Any:
    """Write one of the eight, and a study of it with ``sweep new``."""
    content = EIGHT[name][0]()
    if name == "photos":
        pictures(project / name)
    else:
        (project / name).write_text(content)
    made = sweep("new", name, "--model", str(model))
    assert made.exception is None and "to do" not in made.output, made.output or made.exception
    return made


def model_folder(folder: Path, kind: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "vit" if kind.startswith("image") else "bert"}))
    return folder


@pytest.mark.parametrize("name", EIGHT)
def test_a_file_becomes_a_study_that_passes_its_check(project: Path, name: str) -> None:
    _, kind, columns = EIGHT[name]
    made = written(project, name, model_folder(project / "tiny", kind))
    [file] = project.glob("*/study.yaml")
    found = find_study(str(file)).study
    assert found.task.type == kind and {key: found.task.options[key] for key in columns} == columns
    assert f"kind        {kind}: " in made.output and "correct it" in made.output
    task = file.read_text().partition("task:\n")[2].partition("\n\n")[0].splitlines()
    assert all("  # " in line for line in task)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", EIGHT)
def test_a_study_of_a_file_trains_as_it_was_written(project: Path, tiny_bert: Path, tmp_path: Path, name: str) -> None:
    model = tiny_bert
    if name == "photos":
        from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

        model = tmp_path / "vit"
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **sizes)).save_pretrained(model)
        ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(model)
    written(project, name, model)
    [file] = project.glob("*/study.yaml")
    ran = subprocess.run(
        [sys.executable, "-m", "sweepkit", "run", str(file), "--set", "budget.trials=2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0 and "done  2 trials" in ran.stdout, ran.stdout + ran.stderr


UGLY = {
    "too many fields": (
        table(TEXTS, MOODS, head="text,label") + "a,b,c\nd,e,f\n",
        "rows.csv:50: expected 2 fields, got 3",
    ),
    "stray quote": (
        table(TEXTS, MOODS, head="text,label") + '"Warm" film,sweet\n',
        "continues after its closing quote",
    ),
    "open quote": (table(TEXTS, MOODS, head="text,label") + '"never closed,sweet\n', "rows.csv:50: the quote is never"),
    "header twice": (table(TEXTS, MOODS, head="text,label") * 2, "rows.csv:50: the line with the column names again"),
    "row names": (table(MOODS, TEXTS, MOODS, head="text,label"), "expected 2 fields, got 3"),
    "commas in texts": ("text\n" + "".join(f"{text}, so\n" for text in TEXTS), "expected 1 field, got 2"),
    "latin-1": (table(TEXTS, MOODS, head="text,label") + "caf\u00e9,sweet\n", "is not UTF-8 text (byte 0xe9)"),
    "no JSON": (
        "".join(json.dumps({"text": t, "label": m}) + "\n" for t, m in zip(TEXTS, MOODS, strict=True)) + "{oh\n",
        "JSON",
    ),
    "two texts": (table(TEXTS, TEXTS[::-1], MOODS, head="q,a,ok"), "more than one column could be the text"),
}
"""What is wrong → a file, and what is said of it."""


@pytest.mark.parametrize("what", UGLY)
def test_what_a_message_names_cures_an_ugly_file(project: Path, what: str) -> None:
    content, message = UGLY[what]
    (project / ("rows.jsonl" if what == "no JSON" else "rows.csv")).write_bytes(content.encode("latin-1"))
    [file] = project.glob("rows.*")
    model = model_folder(project / "tiny", KIND)
    refused = sweep("new", file.name, "--model", str(model))
    assert message in str(refused.exception) and not list(project.glob("*/study.yaml"))
    command = shlex.split(re.findall(r"^  (sweep new .*)$", str(refused.exception), re.MULTILINE)[0])
    made = sweep(*command[1:])
    assert made.exception is None, made.exception
    assert "lines: skip" not in " ".join(command) or "lines of train left out" in made.output


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "rows.csv",
            table(TEXTS, [*MOODS[:4], "", *MOODS[5:]], head="text,label"),
            "1 of 48 rows of train have no label",
        ),
        (
            "rows.csv",
            table(TEXTS, [*MOODS[:4], "   ", *MOODS[5:]], head="text,label"),
            "1 of 48 rows of train have no label",
        ),
        ("rows.csv", table([*TEXTS[:9], "", ""], MOODS[:11], head="text,label"), "2 of 11 rows of train have no text"),
        ("rows.jsonl", pairs() + '{"sentence1": "a", "sentence2": "b"}\n', "1 of 48 rows of train have no label"),
        (
            "rows.jsonl",
            "".join(
                json.dumps({"text": TEXTS[n], "label": [MOODS[n]] if n != 4 else None}) + "\n" for n in range(COUNT)
            ),
            "1 of 48 rows of train have no label",
        ),
    ],
)
def test_rows_without_a_text_or_a_label_are_to_be_mended_before_a_run(
    project: Path, name: str, content: str, said: str
) -> None:
    (project / name).write_text(content)
    made = sweep("new", name, "--model", str(model_folder(project / "tiny", KIND)))
    assert made.exception is None and (project / "rows/study.yaml").exists()
    assert f"to do before it can run\n  task.data: {said}, the first is row " in made.output


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        (
            "multi-label-classification",
            [{"text": TEXTS[n], "label": [MOODS[n]] if n % 5 else []} for n in range(COUNT)],
        ),
        (
            "question-answering",
            [
                {
                    "question": f"How was scene {n}?",
                    "context": f"{'so ' * n}{TEXTS[n]}",
                    "answers": f"scene {n}" if n % 5 else None,
                    "answer_start": f"{'so ' * n}{TEXTS[n]}".index("scene") if n % 5 else None,
                }
                for n in range(COUNT)
            ],
        ),
    ],
)
def test_rows_may_have_no_label_and_no_answer_where_their_kind_allows_it(
    project: Path, kind: str, rows: list[dict[str, Any]]
) -> None:
    (project / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = sweep("new", "rows.jsonl", "--kind", kind, "--model", str(model_folder(project / "tiny", kind)))
    assert made.exception is None and "to do" not in made.output, made.exception


def test_a_test_split_without_labels_leaves_nothing_to_do(project: Path) -> None:
    (project / "train.csv").write_text(table(TEXTS, MOODS, head="text,label"))
    (project / "test.csv").write_text(table(TEXTS, head="text"))
    made = sweep("new", "train.csv", "--model", str(model_folder(project / "tiny", KIND)))
    assert made.exception is None and "to do" not in made.output


def test_prose_with_a_few_bars_stays_text(project: Path) -> None:
    (project / "prose.txt").write_text("".join(f"{text}{' | and so on' * (n % 3)}\n" for n, text in enumerate(TEXTS)))
    made = sweep("new", "prose.txt", "--model", str(model_folder(project / "tiny", "causal-lm")))
    assert made.exception is None and "kind        causal-lm" in made.output


@pytest.mark.parametrize(
    ("name", "mark"),
    [*((name, mark) for name in ("rows.csv", "rows.dat", "rows") for mark in (";", "|", "\t")), ("rows.txt", "|")],
)
def test_separators_are_found_also_without_a_suffix(project: Path, name: str, mark: str) -> None:
    (project / name).write_text(table([f"{text}, so" for text in TEXTS], MOODS, head=f"text{mark}label", mark=mark))
    made = sweep("new", name, "--name", "st", "--model", str(model_folder(project / "tiny", KIND)))
    assert made.exception is None and "label as label (2 different values" in made.output, made.exception


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.json", json.dumps({"text": dict(enumerate(TEXTS)), "label": dict(enumerate(MOODS))})),
        ("rows.json", json.dumps({"text": TEXTS, "label": MOODS})),
        ("rows.json", json.dumps({"items": [{"text": t, "label": m} for t, m in zip(TEXTS, MOODS, strict=True)]})),
        (
            "rows.json",
            json.dumps(
                {
                    "ok": True,
                    "data": {"of": 9, "items": [{"text": t, "label": m} for t, m in zip(TEXTS, MOODS, strict=True)]},
                }
            ),
        ),
        ("rows.txt", "".join(json.dumps({"text": t, "label": m}) + "\n" for t, m in zip(TEXTS, MOODS, strict=True))),
    ],
)
def test_json_is_read_however_it_holds_its_rows(project: Path, name: str, content: str) -> None:
    (project / name).write_text(content)
    made = sweep("new", name, "--name", "st", "--model", str(model_folder(project / "tiny", KIND)))
    assert made.exception is None and f": {COUNT} rows\n" in made.output and "label as label (2" in made.output


def test_files_of_other_splits_beside_a_training_file_are_taken(project: Path) -> None:
    for split in ("train", "dev", "test"):
        (project / f"films_{split}.csv").write_text(table(TEXTS, MOODS, head="text,label"))
    (project / "books_test.csv").write_text("other,columns\n1,2\n")
    made = sweep("new", "films_train.csv", "--model", str(model_folder(project / "tiny", KIND)))
    assert made.exception is None and "(films_train.csv, films_dev.csv, films_test.csv)" in made.output
    source = find_study("films-train/study.yaml").study.task.options["data"]
    assert source == {"train": "../films_train.csv", "validation": "../films_dev.csv", "test": "../films_test.csv"}


def test_the_default_model_that_cannot_be_had_is_named_and_nothing_is_written(project: Path) -> None:
    (project / "rows.csv").write_text(table(TEXTS, MOODS, head="text,label"))
    made = sweep("new", "rows.csv")
    assert "the default of text-classification, is not in the cache" in str(made.exception)
    assert "name one with --model" in str(made.exception) and not list(project.glob("*/"))


@pytest.mark.parametrize(
    ("head", "option", "cure"),
    [
        ("text,category", "label", "; write label: category"),
        ("text;label", "text", '; set task.data.separator: ";"'),
        ("text,7", "label", "task.data.columns: [text, label]"),
        ("text,labels", "label", "; did you mean labels?"),
    ],
)
def test_a_check_names_the_option_that_cures_a_missing_column(project: Path, head: str, option: str, cure: str) -> None:
    (project / "rows.csv").write_text(table(TEXTS, MOODS, head="text,label"))
    model_folder(project / "tiny", KIND)
    assert sweep("new", "rows.csv", "--model", "tiny").exception is None
    (project / "rows.csv").write_text(f"{head}\na,b\n")
    checked = sweep("check", "rows/study.yaml")
    assert f"task.{option}: ../rows.csv has no column {option}" in str(checked.exception) and cure in str(
        checked.exception
    )


@pytest.mark.real
def test_the_skeleton_of_a_task_passes_its_check_and_writes_over_nothing(project: Path) -> None:
    made = sweep("task", "my-words")
    assert made.exception is None and "to do" not in made.output
    assert find_study("my-words/study.yaml").study.task.path == "task.py:MyWords"
    assert "is not overwritten" in str(sweep("task", "my-words").exception)
    assert "cannot name a study" in str(sweep("task", "my words").exception)


@pytest.mark.slow
@pytest.mark.real
def test_the_skeleton_of_a_task_trains_as_it_stands(project: Path) -> None:
    sweep("task", "mine")
    command = [sys.executable, "-m", "sweepkit", "run", "mine/study.yaml", "--set", "budget.trials=2"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and "done  2 trials" in ran.stdout, ran.stdout + ran.stderr


def test_a_hub_that_does_not_answer_is_told_in_a_sentence(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def unanswered(*arguments: object) -> None:
        raise LocalEntryNotFoundError("no route")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unanswered)
    monkeypatch.setattr("sweepkit.tasks.references.offline", lambda: "")
    monkeypatch.setattr("sweepkit.tasks.references.downloaded_model", lambda name: None)
    (project / "reviews.csv").write_text(table(TEXTS, MOODS, head="text,label"))
    said = str(sweep("new", "reviews.csv").exception)
    assert "the default of text-classification, is not in the cache, and the hub does not answer; name one with" in said
