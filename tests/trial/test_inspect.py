"""What is found out about a task before anything of its study is recorded: what ends the study, what is only said."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import toys
from making import spec, toy_study
from sweepkit.check.study_file import load_study
from sweepkit.trial.first_steps import Inspected
from sweepkit.trial.inspect import MULTIPLIED, inspect
from trained import study_file, written

pytestmark = pytest.mark.real

SPLITS = ("train", "validation")


@pytest.mark.parametrize(
    ("task", "problems", "notes"),
    [
        ({}, [], []),
        ({"broken": "model"}, [("task", "a trial cannot be built: RuntimeError: toy model is broken")], []),
        (
            {"fail_at_step": 1},
            [("task", "a step and an evaluation failed: RuntimeError: toy failure at step 1")],
            [],
        ),
        (
            {"broken": "save"},
            [],
            ["the model cannot be saved (RuntimeError: toy model cannot be written); trials may fail in the same way"],
        ),
    ],
    ids=["sound", "cannot be built", "fails in its first step", "cannot be saved"],
)
def test_what_a_task_cannot_do_is_known_before_its_first_trial(
    project: Path, task: dict[str, Any], problems: list[tuple[str, str]], notes: list[str]
) -> None:
    found = inspect(toy_study(project, task=task), spec(project, 0))
    assert (list(found.problems), list(found.notes)) == (problems, notes)


@pytest.mark.parametrize(("ranks", "average", "said"), [(1, True, False), (2, True, True), (2, False, False)])
def test_a_loss_that_several_ranks_would_multiply_is_said(
    project: Path, tiny_bert: Path, ranks: int, average: bool, said: bool
) -> None:
    written(project, {split: [{"text": word, "label": word} for word in ("free", "bus") * 8] for split in SPLITS})
    file = study_file(
        project,
        "text-classification",
        tiny_bert,
        training={"average_tokens_across_devices": average},
        backend={"parallel": 1, "ranks_per_trial": ranks},
    )
    found = inspect(load_study(file).study, spec(project, 0))
    assert found.problems == ()
    assert (MULTIPLIED.format(ranks=ranks) in found.facts) is said


FOREIGN = "λόγος πρὸς θεόν"
UNREAD: dict[str, tuple[Callable[[Path], Path], Callable[[str, int], dict[str, Any]]]] = {
    "text-classification": (toys.tiny_bert, lambda text, n: {"text": text, "label": n % 2}),
    "text-regression": (toys.tiny_bert, lambda text, n: {"text": text, "label": float(n)}),
    "token-classification": (
        toys.tiny_bert,
        lambda text, n: {"words": text.split(), "tags": [f"T{n % 2}"] * len(text.split())},
    ),
    "seq2seq": (toys.tiny_t5, lambda text, n: {"source": text, "target": "call now"}),
    "question-answering": (
        toys.tiny_bert,
        lambda text, n: {"question": text, "context": text, "answers": {"text": [text], "answer_start": [0]}},
    ),
    "sentence-similarity": (toys.tiny_bert, lambda text, n: {"sentence1": text, "sentence2": text, "score": n % 2}),
}


def looked_at(project: Path, kind: str, foreign: int) -> Inspected:
    """What the inspection says of 20 rows of which so many are of another script than the tokenizer's."""
    model, row = UNREAD[kind]
    rows = [row(FOREIGN if n < foreign else "free prize now", n) for n in range(20)]
    written(project, dict.fromkeys(SPLITS, rows))
    return inspect(load_study(study_file(project, kind, model(project / "model"))).study, spec(project, 0))


@pytest.mark.parametrize("kind", UNREAD)
def test_texts_that_the_tokenizer_does_not_know_end_the_study(project: Path, kind: str) -> None:
    [(where, said)] = looked_at(project, kind, foreign=19).problems
    assert where == "task" and re.match(r"9\d% of the tokens of the training rows are (\[UNK\]|<unk>): ", said)


def test_validation_is_looked_at_too(project: Path, tiny_bert: Path) -> None:
    known = [{"text": "free prize now", "label": n % 2} for n in range(20)]
    written(project, {"train": known, "validation": [{**row, "text": FOREIGN} for row in known]})
    [(_, said)] = inspect(
        load_study(study_file(project, "text-classification", tiny_bert)).study, spec(project, 0)
    ).problems
    assert said.startswith("100% of the tokens of the validation rows are [UNK]")


def test_a_part_that_the_tokenizer_does_not_know_is_said_and_a_word_is_not(project: Path) -> None:
    some = looked_at(project, "text-classification", foreign=4)
    assert some.problems == () and any(fact.startswith("20% of the tokens") for fact in some.facts)
    few = looked_at(project, "text-classification", foreign=0)
    assert few.problems == () and not any("of the tokens" in fact for fact in few.facts)


def test_a_tokenizer_of_bytes_knows_every_text(project: Path) -> None:
    rows = [{"text": FOREIGN}] * 20
    written(project, dict.fromkeys(SPLITS, rows))
    file = study_file(project, "causal-lm", toys.tiny_gpt2(project / "gpt2"), task={"block_size": 16})
    found = inspect(load_study(file).study, spec(project, 0))
    assert found.problems == () and not any("of the tokens" in fact for fact in found.facts)
