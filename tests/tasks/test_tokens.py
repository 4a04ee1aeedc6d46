"""Words keep their tags from any file to the metric: reading, class ids, alignment with tokens, seqeval's scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import evaluate  # noqa: F401  # seqeval's scikit-learn is then the one that studies have
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import seqeval.metrics
from datasets import ClassLabel, Dataset, Features, List, Value
from seqeval.scheme import IOB2
from transformers import EvalPrediction

import toys
from sweepkit.study.errors import InputError, MissingExtra
from sweepkit.study.study import TaskSpec
from sweepkit.tasks import metrics
from sweepkit.tasks.conll import read_conll
from sweepkit.tasks.load import load_task
from sweepkit.tasks.task import Task
from sweepkit.tasks.token_classification import align, decide_tags

ROWS = [(["free", "prize", "now"], ["B-X", "I-X", "O"]), (["lunch", "late"], ["B-Y", "O"])] * 5


def tokens(home: Path, model: Path, file: str, **spec: Any) -> Task:
    return load_task(TaskSpec(type="token-classification", model=str(model), data={"path": file}, **spec), home)


def as_jsonl(rows: Any) -> str:
    return "".join(json.dumps({"words": words, "tags": tags}) + "\n" for words, tags in rows)


def as_conll(rows: Any, between: str, ends: str = "\n") -> str:
    blocks = (ends.join(f"{w}{between}NN{between}{t}" for w, t in zip(*row, strict=True)) for row in rows)
    return (ends * 2).join(["-DOCSTART- -X- O", *blocks])


@pytest.mark.parametrize(
    "format_", ["jsonl", "parquet", "ids", "tabs.txt", "blanks.conll", "dos.iob2", "comments.conll"]
)
def test_every_format_gives_the_same_words_and_tags(format_: str, tmp_path: Path, tiny_bert: Path) -> None:
    file = tmp_path / f"rows.{format_ if '.' in format_ else 'jsonl'}"
    words, tags = ([row[n] for row in ROWS] for n in (0, 1))
    if format_ == "parquet":
        file = tmp_path / "rows.parquet"
        parquet.write_table(pa.table({"words": words, "tags": tags}), file)
    elif format_ == "ids":
        file = tmp_path / "rows.parquet"
        features = Features(
            {"words": List(Value("string")), "tags": List(ClassLabel(names=["B-X", "B-Y", "I-X", "O"]))}
        )
        Dataset.from_dict({"words": words, "tags": tags}, features=features).to_parquet(file)
    elif format_ == "jsonl":
        file.write_text(as_jsonl(ROWS))
    elif format_ == "comments.conll":
        file.write_text("\n\n".join("# text = x\n" + as_conll([row], " ").partition("\n\n")[2] for row in ROWS))
    else:
        file.write_bytes(
            as_conll(ROWS, "\t" if "tabs" in format_ else " ", "\r\n" if "dos" in format_ else "\n").encode()
        )
    splits = tokens(tmp_path, tiny_bert, file.name, validation=0.5).data()
    feature = splits["train"].features["tags"].feature
    assert feature.names == ["B-X", "B-Y", "I-X", "O"]
    both = sorted(
        (ids, [label for label in labels if label >= 0])
        for part in splits.values()
        for ids, labels in zip(part["tags"], part["labels"], strict=True)
    )
    assert both == sorted(
        (list(map(feature.names.index, tags)), list(map(feature.names.index, tags))) for _, tags in ROWS
    )


def test_the_columns_of_a_conll_file_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("free JJ O\nprize NN B-X\n")
    found = read_conll([str(tmp_path / "a.conll")], ["words", "pos", "tags"])
    assert found[0] == {"words": ["free", "prize"], "pos": ["JJ", "NN"], "tags": ["O", "B-X"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("free O\nprize\n", r"a.conll:2: expected a word and a tag, got 'prize'"),
        ("free\n", "a.conll:1: expected a word and its tag, got 'free'"),
        ("free JJ O\nprize NN\n", "a.conll:2: expected 3 columns, got 'prize NN'"),
        ("free\t\n", r"a.conll:1: expected a word and a tag, got 'free\\t'"),
        ("\n-DOCSTART- O\n", "a.conll is empty"),
    ],
)
def test_a_conll_file_with_another_shape_is_refused_with_its_line(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(content)
    with pytest.raises(InputError, match=message):
        read_conll([str(tmp_path / "a.conll")])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(["a", "b"], ["O"])], "row 3 of train has 2 words, but 1 tags"),
        ([([], [])], "row 3 of train has no words"),
        ([(["a", "b"], ["O", None])], "1 of 7 entries of train have no label, the first is row 3"),
        ([(["a"], None)], "1 of 3 rows of train have no label, the first is row 3"),
        ([("a b", "O O")], "words is one value in some rows"),
        ([(["a", None], ["O", "O"])], "row 3 of train has an empty word"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows: Any, message: str, tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "m.jsonl").write_text(as_jsonl([*ROWS[:2], *rows]))
    with pytest.raises(InputError, match=message):
        tokens(tmp_path, tiny_bert, "m.jsonl").data()


def test_a_single_tag_is_refused_by_the_options_name(tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "m.jsonl").write_text(as_jsonl([(["free", "now"], ["O", "O"])] * 4))
    with pytest.raises(InputError, match=r"task.tags: every row has the label 'O'; at least two classes are needed"):
        tokens(tmp_path, tiny_bert, "m.jsonl").data()


def test_a_test_split_without_tags_is_left_out(tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "m.jsonl").write_text(as_jsonl(ROWS))
    (tmp_path / "t.jsonl").write_text(as_jsonl([(words, None) for words, _ in ROWS]))
    data = {"train": "m.jsonl", "validation": "m.jsonl", "test": "t.jsonl"}
    spec = TaskSpec(type="token-classification", model=str(tiny_bert), data=data)
    assert [*load_task(spec, tmp_path).data()] == ["train", "validation"]


def test_a_column_of_texts_is_refused(tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "m.csv").write_text("words,tags\na b,O O\nc,O\n")
    with pytest.raises(
        InputError, match=r"task.words: expected a list per row, got 'a b' in words of row 1 of train; .*jsonl"
    ):
        tokens(tmp_path, tiny_bert, "m.csv").data()


def test_a_word_of_several_tokens_is_labelled_at_its_first(tiny_bert: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    batch = align(tokenizer, [["free", "xyz", "prize"]], [[1, 2, 3]])
    assert batch["labels"] == [[-100, 1, 2, -100, -100, 3, -100]]


def test_words_beyond_the_length_and_words_without_tokens_are_counted(tmp_path: Path, tiny_bert: Path) -> None:
    rows = [(["free", "prize", "xyz", "\u200d"], ["B-X", "I-X", "B-Y", "O"])] * 10
    (tmp_path / "m.jsonl").write_text(as_jsonl(rows))
    task = tokens(tmp_path, tiny_bert, "m.jsonl", max_length=4)
    assert task.data_notes()[:2] == [
        "16 of 32 words of train lie beyond 4 tokens or have none; they are neither trained on nor evaluated",
        "4 of 8 words of validation lie beyond 4 tokens or have none; they are neither trained on nor evaluated",
    ]


def test_tags_of_which_only_some_mark_entities_are_scored_by_word_and_noted(tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "m.jsonl").write_text(as_jsonl([(["free", "prize"], ["B-X", "NAME"]), (["late"], ["O"])] * 5))
    notes = tokens(tmp_path, tiny_bert, "m.jsonl").data_notes()
    assert "'B-X' marks an entity, but 'NAME' does not, so tags are scored by word" in notes


def test_words_of_a_bytewise_tokenizer_begin_with_a_blank(tmp_path: Path) -> None:
    model = toys.tiny_gpt2(tmp_path / "gpt2")
    (tmp_path / "m.jsonl").write_text(as_jsonl(ROWS))
    task = tokens(tmp_path, model, "m.jsonl")
    tokenizer = task.processing_class()
    assert tokenizer is not None
    assert {tokenizer.decode(row) for row in task.data()["train"]["input_ids"]} == {" free prize now", " lunch late"}
    tokenizer.save_pretrained(tmp_path / "saved")
    again = type(tokenizer).from_pretrained(tmp_path / "saved")
    assert again.decode(again(["a", "b"], is_split_into_words=True)["input_ids"]) == " a b"


NAMES = ["B-X", "B-Y", "I-X", "I-Y", "O"]
DICE = np.random.default_rng(0)
LABELS = np.where(DICE.random((40, 12)) < 0.3, -100, DICE.integers(0, 5, (40, 12)))
LABELS[:, 1] = 0
LOGITS = DICE.normal(size=(40, 12, 5)) + 1.5 * np.eye(5)[np.where(LABELS < 0, 0, LABELS)]


class Chunks(Task):
    """A Task of one's own gets the metrics of tags by saying what they compare."""

    metrics: list[str | dict[str, dict[str, Any]]] = ["f1", "f1_macro", "accuracy", "precision", "recall"]

    def decide(self, prediction: EvalPrediction) -> metrics.Decided:
        return decide_tags(prediction.predictions, prediction.label_ids, NAMES)


def texts(numbers: Any) -> list[list[str]]:
    return [
        [NAMES[n] for n, label in zip(row, true, strict=True) if label != -100]
        for row, true in zip(numbers, LABELS, strict=True)
    ]


@pytest.mark.parametrize("batched", [False, True])
def test_scores_of_entities_are_seqevals(batched: bool) -> None:
    both = (texts(LABELS), texts(LOGITS.argmax(-1)))
    parts = ([LOGITS[:30], LOGITS[30:, :12]], [LABELS[:30], LABELS[30:]]) if batched else (LOGITS, LABELS)
    found = Chunks().compute_metrics(EvalPrediction(*parts))
    assert found == {
        **{
            name: getattr(seqeval.metrics, f"{name}_score")(*both) for name in ("f1", "accuracy", "precision", "recall")
        },
        "f1_macro": seqeval.metrics.f1_score(*both, average="macro"),
    }
    strict = Chunks(metrics=[{"f1": {"scheme": "IOB2"}}]).compute_metrics(EvalPrediction(*parts))
    assert strict == {"f1": seqeval.metrics.f1_score(*both, mode="strict", scheme=IOB2)}
    assert strict["f1"] != found["f1"]


def test_bilou_is_scored_as_the_same_tags_in_bioes() -> None:
    true, found = [["B-X", "L-X", "U-Y", "O"]], [["B-X", "L-X", "O", "U-Y"]]
    score = metrics.load("f1", "tags").compute(predictions=found, references=true)["f1"]
    assert score == 0.5


def test_without_seqeval_entities_are_refused_and_other_tags_are_not(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "package_folder", lambda name: None)
    (tmp_path / "m.jsonl").write_text(as_jsonl(ROWS))
    with pytest.raises(MissingExtra, match=r"the metric precision needs .* pip install 'sweepkit\[metrics\]'"):
        tokens(tmp_path, tiny_bert, "m.jsonl").data()
    (tmp_path / "m.jsonl").write_text(as_jsonl([(["free", "now"], ["ADJ", "ADV"])] * 5))
    assert len(tokens(tmp_path, tiny_bert, "m.jsonl").data()["train"]) == 4
