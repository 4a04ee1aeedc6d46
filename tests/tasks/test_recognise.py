"""What ``sweep tune`` takes made tables for: by names, by values, and not at all."""

from __future__ import annotations

import datetime
import random
from typing import Any

import pytest

from sweepkit.study.errors import InputError
from sweepkit.tasks.kinds import KINDS, kind_class
from sweepkit.tasks.recognise import Recognised, recognise

COUNT = 60
DICE = random.Random(0)
WORDS = ("the", "film", "was", "slow", "but", "we", "liked", "how", "its", "story", "ended", "warm", "after", "all")
VALUES: dict[str, list[Any]] = {
    "TEXT": [" ".join(DICE.choices(WORDS, k=8)) + f" {n}" for n in range(COUNT)],
    "MORE": [" ".join(DICE.choices(WORDS, k=9)) + f" {n}" for n in range(COUNT)],
    "CLASS": [("good", "bad", "so so")[n % 3] for n in range(COUNT)],
    "JOINED": ["; ".join(("arts", "film", "music", "sport")[n % 4 :: 1 + n % 3]) for n in range(COUNT)],
    "WRITTEN": [str([("arts", "film", "music")[n % 3], "sport"][: 1 + n % 2]) for n in range(COUNT)],
    "COMMAS": [("good", "bad, but fine", "so so, at best")[n % 3] for n in range(COUNT)],
    "PLACES": [f"Town {n}, {('Ohio', 'Utah', 'Iowa')[n % 3]}" for n in range(COUNT)],
    "FLAG": [str(n % 2) for n in range(COUNT)],
    "STARS": [str(1 + n % 5) for n in range(COUNT)],
    "FLOAT": [f"{DICE.random():.4f}" for _ in range(COUNT)],
    "HALVES": [str(n % 9 / 2) for n in range(COUNT)],
    "PRICE": [str(DICE.randrange(1000, 9000)) for _ in range(COUNT)],
    "WHOLE": [n % 4 for n in range(COUNT)],
    "DECIMAL": [n * 0.37 for n in range(COUNT)],
    "BOOL": [n % 2 == 0 for n in range(COUNT)],
    "ID": [str(n) for n in range(COUNT)],
    "HASH": [f"{DICE.getrandbits(64):016x}" for _ in range(COUNT)],
    "DATE": [f"2024-01-{1 + n % 28:02d}" for n in range(COUNT)],
    "MOMENT": [datetime.datetime(2024, 1, 1, n % 24) for n in range(COUNT)],
    "SAME": ["en"] * COUNT,
    "EMPTY": [""] * COUNT,
    "LISTS": [["a", "warm", "note"]] * COUNT,
    "TAGS": [["O", "B-X", "O"]] * COUNT,
    "NUMBERS": [[0, 1, 0]] * COUNT,
    "INSIDE": [[{"text": "a film", "label": "good"}]] * COUNT,
    "ANSWERS": [{"text": ["film"], "answer_start": [4]}] * COUNT,
    "PIXELS": [[n] * 64 for n in range(COUNT)],
    "TALK": [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": f"hello {n}"}] for n in range(COUNT)],
}


def recognised(columns: str, **options: Any) -> Recognised:
    """Recognise a table of ``name=VALUES``; ``~`` stands for a blank."""
    from datasets import Dataset

    pairs = (text.split("=") for text in columns.split())
    table = {name.replace("~", " "): VALUES[values] for name, values in pairs}
    return recognise(Dataset.from_dict(table), again="sweep tune data.csv", **options)


CLASSES, REGRESSION, TOKENS = "text-classification", "text-regression", "token-classification"
FOUND: dict[str, tuple[str, dict[str, Any]]] = {
    "text=TEXT label=CLASS": (CLASSES, {"text": "text", "label": "label"}),
    "review=TEXT stars=STARS": (CLASSES, {"text": "review", "label": "stars"}),
    "~Text~=TEXT LABEL=CLASS": (CLASSES, {"text": " Text ", "label": "LABEL"}),
    "Review~Text=TEXT Class=FLAG": (CLASSES, {"text": "Review Text", "label": "Class"}),
    "target=FLAG sentence=TEXT": (CLASSES, {"text": "sentence", "label": "target"}),
    "id=ID text=TEXT label=FLAG": (CLASSES, {"text": "text", "label": "label"}),
    "Unnamed:~0=ID comment=TEXT category=CLASS": (CLASSES, {"text": "comment", "label": "category"}),
    "text=TEXT label=WHOLE": (CLASSES, {"text": "text", "label": "label"}),
    "text=TEXT label=BOOL": (CLASSES, {"text": "text", "label": "label"}),
    "title=MORE text=TEXT label=CLASS": (CLASSES, {"text": "text", "label": "label"}),
    "text=TEXT label=CLASS score=FLOAT": (CLASSES, {"text": "text", "label": "label"}),
    "text=TEXT label=CLASS lang=CLASS date=DATE": (CLASSES, {"text": "text", "label": "label"}),
    "bemerkung=TEXT art=CLASS": (CLASSES, {"text": "bemerkung", "label": "art"}),
    "text=TEXT aspect=CLASS id=ID date=DATE": (CLASSES, {"text": "text", "label": "aspect"}),
    "letter=TEXT label=FLAG": (CLASSES, {"text": "letter", "label": "label"}),
    "sentence1=TEXT sentence2=MORE label=FLAG": (CLASSES, {"text": ["sentence1", "sentence2"], "label": "label"}),
    "premise=TEXT hypothesis=MORE label=CLASS": (CLASSES, {"text": ["premise", "hypothesis"], "label": "label"}),
    "id=ID qid1=ID question1=TEXT question2=MORE is_duplicate=FLAG": (
        CLASSES,
        {"text": ["question1", "question2"], "label": "is_duplicate"},
    ),
    "question=TEXT sentence=MORE label=FLAG idx=ID": (CLASSES, {"text": ["question", "sentence"], "label": "label"}),
    "context=TEXT question=MORE label=CLASS": (CLASSES, {"text": ["question", "context"], "label": "label"}),
    "text=TEXT text_id=ID label_id=STARS": (CLASSES, {"text": "text", "label": "label_id"}),
    "text=TEXT label=CLASS label_text=CLASS": (CLASSES, {"text": "text", "label": "label"}),
    "tweet_id=ID text=TEXT target=FLAG keyword=CLASS location=CLASS": (CLASSES, {"text": "text", "label": "target"}),
    "text=TEXT score=FLOAT": (REGRESSION, {"text": "text", "label": "score"}),
    "text=TEXT price=PRICE": (REGRESSION, {"text": "text", "label": "price"}),
    "text=TEXT label=DECIMAL": (REGRESSION, {"text": "text", "label": "label"}),
    "text=TEXT rating=HALVES": (REGRESSION, {"text": "text", "label": "rating"}),
    "sentence1=TEXT sentence2=MORE score=FLOAT": (REGRESSION, {"text": ["sentence1", "sentence2"], "label": "score"}),
    "text=TEXT latency=FLOAT": (REGRESSION, {"text": "text", "label": "latency"}),
    "id=ID tokens=LISTS ner_tags=NUMBERS": (TOKENS, {"words": "tokens", "tags": "ner_tags"}),
    "words=LISTS tags=TAGS": (TOKENS, {"words": "words", "tags": "tags"}),
    "tokens=LISTS pos_tags=NUMBERS chunk_tags=NUMBERS ner_tags=NUMBERS": (
        TOKENS,
        {"words": "tokens", "tags": "ner_tags"},
    ),
    "tokens=LISTS upos=TAGS": (TOKENS, {"words": "tokens", "tags": "upos"}),
    "text=TEXT": ("causal-lm", {"text": "text"}),
    "id=ID url=HASH title=MORE text=TEXT": ("causal-lm", {"text": "text"}),
    "my_story=TEXT id=ID": ("causal-lm", {"text": "my_story"}),
    "messages=TALK": ("sft", {}),
    "turns_of_a_talk=TALK id=ID": ("sft", {"columns": {"messages": "turns_of_a_talk"}}),
    "prompt=TEXT completion=MORE": ("sft", {}),
    "instruction=TEXT response=MORE": ("sft", {"columns": {"prompt": "instruction", "completion": "response"}}),
    "anchor=TEXT positive=MORE": ("sentence-similarity", {}),
    "anchor=TEXT positive=MORE negative=TEXT": ("sentence-similarity", {}),
    "query=TEXT positive=MORE": ("sentence-similarity", {"columns": {"anchor": "query"}}),
    "text=TEXT labels=LISTS": ("multi-label-classification", {"text": "text", "label": "labels"}),
    "text=JOINED label=CLASS": (CLASSES, {"text": "text", "label": "label"}),
    "source=TEXT target=JOINED": ("seq2seq", {"source": "source", "target": "target"}),
    "text=TEXT label=COMMAS": (CLASSES, {"text": "text", "label": "label"}),
    "text=TEXT origin=PLACES label=CLASS": (CLASSES, {"text": "text", "label": "label"}),
    **{
        f"text=TEXT {name}=JOINED": (
            "multi-label-classification",
            {"text": "text", "label": name, "label_separator": ";"},
        )
        for name in ("label", "tags", "genre", "subjects")
    },
    "id=ID title=MORE context=TEXT question=MORE answers=ANSWERS": (
        "question-answering",
        {"question": "question", "context": "context", "answers": "answers"},
    ),
    "source=TEXT target=MORE": ("seq2seq", {"source": "source", "target": "target"}),
    "document=TEXT summary=MORE id=ID": ("seq2seq", {"source": "document", "target": "summary"}),
    "prompt=TEXT chosen=MORE rejected=TEXT": ("dpo", {}),
    "chosen=TALK rejected=TALK score=FLOAT": ("dpo", {}),
    "image=PIXELS label=FLAG": ("image-classification", {"image": "image", "label": "label"}),
}


@pytest.mark.parametrize("columns", FOUND)
def test_a_table_is_recognised(columns: str) -> None:
    found = recognised(columns)
    assert (found.kind, found.options) == FOUND[columns]


def test_what_else_the_columns_would_do_for_is_said() -> None:
    found = recognised("sentence1=TEXT sentence2=MORE label=FLAG id=ID")
    assert "sentence-similarity" in found.others and found.unused == ("id",)
    assert "label as label (2 different values: 0, 1)" in found.taken


REFUSED = {
    "text=TEXT label=ID": "label: numbers that count the rows",
    "text=TEXT label=HASH": "label: texts, different in most rows",
    "text=TEXT labels=WRITTEN": "labels: lists written as text, which are not read as lists",
    "text=TEXT label=SAME": "label: 'en' in every row",
    "text=TEXT label=DATE": "label: dates",
    "text=TEXT label=MOMENT": "label: dates",
    "text=TEXT label=EMPTY": "label: empty",
    "id=ID date=DATE lang=SAME": "id: ids",
    "text=TEXT user_id=STARS x=PRICE z=FLOAT": "more than one column could be the label",
    "text=TEXT aspect=CLASS latency=FLOAT": "--kind text-regression --set 'task.label=latency'",
    "text=TEXT category=CLASS price=FLOAT": "--kind text-regression --set 'task.label=price'",
    "text=TEXT label=CLASS target=FLAG": "--set 'task.label=target'",
    "text=TEXT tone=CLASS place=FLAG": "--set 'task.label=place'",
    "title=MORE body=TEXT label=CLASS": "--set 'task.text=body'",
    "my_words=TEXT split=FLAG age=CLASS sex=FLAG": "more than one column could be the label",
    "document=TEXT gist_of_it=MORE": "no kind of task fits",
    "text=TEXT summary_id=STARS ner=TAGS": "no kind of task fits",
    "instruction=TEXT input=MORE output=TEXT": "task.columns.prompt=instruction",
    "text=TEXT label=SAME category=CLASS": "label: 'en' in every row",
    "text=TEXT target=ID aspect=FLAG": "target: numbers that count the rows",
    "comment_text=TEXT rude=FLAG angry=FLAG": "--set 'task.label=[rude, angry]'",
    "question=TEXT context=MORE answer=TEXT": "no kind of task fits",
    "prompt=TEXT completion=MORE label=BOOL": "more than one column could be the text",
    "tweet_id=ID mood=CLASS airline=CLASS text=TEXT": "--set 'task.label=airline'",
    "PassengerId=ID Name=TEXT Survived=FLAG Age=FLOAT": "--set 'task.label=Age'",
    "a=FLOAT b=PRICE": "no kind of task fits",
    "version=SAME data.items=INSIDE": "if data.items holds the rows, make a file of them: jq '.data.items' FILE > rows.json",
}


@pytest.mark.parametrize("columns", REFUSED)
def test_what_is_doubtful_is_refused_with_the_columns_and_what_to_type(columns: str) -> None:
    with pytest.raises(InputError) as caught:
        recognised(columns)
    said = str(caught.value)
    assert REFUSED[columns] in said and ("\n  sweep tune data.csv --kind" in said or "sweep task NAME" in said)
    assert all(f"\n  {text.split('=')[0]}: " in said for text in columns.split())


@pytest.mark.parametrize(
    ("columns", "said", "kind", "options"),
    [
        ("text=TEXT stars=STARS", {"kind": REGRESSION}, REGRESSION, {"text": "text", "label": "stars"}),
        ("text=TEXT label=CLASS", {"kind": "causal-lm"}, "causal-lm", {"text": "text"}),
        ("sentence1=TEXT sentence2=MORE label=FLAG", {"kind": "sentence-similarity"}, "sentence-similarity", {}),
        ("text=TEXT year=STARS x=CLASS", {"chosen": {"label": "year"}}, CLASSES, {"text": "text", "label": "year"}),
        (
            "text=TEXT user_id=STARS a=CLASS",
            {"chosen": {"label": "user_id"}},
            CLASSES,
            {"text": "text", "label": "user_id"},
        ),
        (
            "title=MORE body=TEXT label=CLASS",
            {"chosen": {"text": ["title", "body"]}},
            CLASSES,
            {"text": ["title", "body"], "label": "label"},
        ),
        (
            "sentence1=TEXT sentence2=MORE label=FLAG",
            {"chosen": {"text": "sentence1"}},
            CLASSES,
            {"text": "sentence1", "label": "label"},
        ),
        (
            "comment=TEXT rude=FLAG angry=FLAG",
            {"chosen": {"label": ["rude", "angry"]}},
            "multi-label-classification",
            {"text": "comment", "label": "rude"},  # the list that was typed is written over it
        ),
        (
            "text=TEXT a=JOINED b=CLASS",
            {"chosen": {"label": "a"}},
            "multi-label-classification",
            {"text": "text", "label": "a", "label_separator": ";"},
        ),
        (
            "text=TEXT tags=JOINED",
            {"kind": CLASSES, "chosen": {"label": "tags"}},
            CLASSES,
            {"text": "text", "label": "tags"},
        ),
        (
            "q=TEXT a=MORE",
            {"chosen": {"columns": {"prompt": "q", "completion": "a"}}},
            "sft",
            {"columns": {"prompt": "q", "completion": "a"}},
        ),
    ],
)
def test_what_a_person_says_wins(columns: str, said: dict[str, Any], kind: str, options: dict[str, Any]) -> None:
    found = recognised(columns, **said)
    assert (found.kind, found.options) == (kind, options)


def test_a_column_that_there_is_not_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"task.label: there is no column lable; did you mean label\?"):
        recognised("text=TEXT label=CLASS", chosen={"label": "lable"})


def test_a_sorted_table_is_looked_at_as_a_whole() -> None:
    from datasets import Dataset

    many = [f"{text} {n}" for n in range(200) for text in VALUES["TEXT"]]
    found = recognise(Dataset.from_dict({"text": many, "label": ["a"] * 6000 + ["b"] * 6000}))
    assert found.options["label"] == "label" and "2 different values" in found.taken


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_by_what_its_data_is_known(kind: str) -> None:
    template = kind_class(kind).template
    assert template is not None and template.shapes and template.model.count("/") == 1
