"""Each built-in kind is a file and a line: what else belongs to one is asked of its class, or stands in the README."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweepkit.tasks.kinds import KINDS, kind_class

ROOT = Path(__file__).parents[2]
BY_HAND = {
    "text-classification": "trial/test_plain_trainer.py:test_metrics_of_classes_are_a_plain_trainers",
    "multi-label-classification": "trial/test_plain_labels.py:test_several_labels_are_scored_as_by_a_plain_trainer",
    "text-regression": "trial/test_plain_trainer.py:test_metrics_of_numbers_are_a_plain_trainers",
    "image-classification": "trial/test_plain_trainer.py:test_images_are_classified_as_by_a_plain_trainer",
    "causal-lm": "trial/test_plain_trainer.py:test_perplexity_is_a_plain_trainers",
    "token-classification": "trial/test_plain_tokens.py:test_tags_are_scored_as_by_run_ner",
    "seq2seq": "trial/test_plain_seq2seq.py:test_texts_are_generated_and_scored_as_by_run_summarization",
    "question-answering": "trial/test_plain_answers.py:test_answers_are_found_and_scored_as_by_run_qa",
    "sentence-similarity": "tasks/test_sentences.py:test_embeddings_report_what_sentence_transformers_reports",
    "dpo": "tasks/test_trl.py:test_preferences_are_trained_as_trl_trains_them",
    "sft": "tasks/test_trl.py:test_fine_tuning_reports_what_trl_reports",
}
"""Kind → the test in ``tests/`` that compares it with a script that knows nothing of sweepkit."""


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_template(kind: str) -> None:
    assert kind_class(kind).template is not None


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_line_in_the_readme(kind: str) -> None:
    assert f"\n| `{kind}`" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_compared_with_a_script_written_by_hand(kind: str) -> None:
    file, _, name = BY_HAND[kind].partition(":")
    assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")
