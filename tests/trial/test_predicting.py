"""What the best model predicts for each row of a file or of the test split, by kind, compared with the model by hand."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import toys
from sweepkit.check.study_file import load_study
from sweepkit.study.errors import InputError
from sweepkit.study.study import StudyData
from sweepkit.tasks.load import task_of
from sweepkit.trial.objective import build_trainer
from sweepkit.trial.predicting import predict
from sweepkit.trial.trial import TrialSpec
from trained import study_file, written

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]

Row = dict[str, Any]


class Made:
    """A study of a kind with a model that nobody trained, in the place of a trial's best one."""

    def __init__(self, project: Path, kind: str, model: Path, rows: Sequence[Row], **task: Any) -> None:
        self.project, self.model = project, project / "best-model"
        written(project, {"train": rows, "validation": rows, "test": rows[::-1]})
        data = {split: f"{split}.jsonl" for split in ("train", "validation", "test")}
        study = load_study(study_file(project, kind, model, task={"data": data, **task})).study
        self.study: StudyData = study
        self.spec = TrialSpec(number=0, hyperparameters={"learning_rate": 1e-3}, directory=str(project / "trial"))
        trainer = build_trainer(study, self.spec, task_of(study), study.by_consumer({}), None)
        trainer.save_model(str(self.model))

    def predict(self, rows: Sequence[Row] | None = None, suffix: str = ".jsonl") -> tuple[dict[str, Any], list[Row]]:
        """Return the answer and what was written for these rows, or for the test split."""
        data = self.project / f"new{suffix}" if rows is not None else None
        if data is not None and suffix == ".jsonl":
            data.write_text("".join(json.dumps(row) + "\n" for row in rows or ()))
        elif data is not None and rows is not None:
            with data.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        output = self.project / f"out{suffix}"
        answer = predict(self.study, self.spec, self.model, output, data)
        if suffix == ".csv":
            return answer, list(csv.DictReader(output.open()))
        return answer, [json.loads(line) for line in output.read_text().splitlines()]


MESSAGES = [{"text": text, "label": label} for text, label in toys.messages(12)]


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Made:
    project = tmp_path_factory.mktemp("messages")
    (project / "pyproject.toml").touch()
    return Made(project, "text-classification", tiny_bert, MESSAGES)


def by_hand(model: Path, texts: Sequence[str]) -> list[tuple[str, float]]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer, found = AutoTokenizer.from_pretrained(model), AutoModelForSequenceClassification.from_pretrained(model)
    shares = [found.eval()(**tokenizer(text, return_tensors="pt")).logits[0].softmax(-1) for text in texts]
    return [(found.config.id2label[int(each.argmax())], float(each.max())) for each in shares]


def test_a_class_and_its_probability_stand_beside_the_row_and_metrics_are_those_of_the_rows(messages: Made) -> None:
    answer, found = messages.predict(MESSAGES[:7])
    hand = by_hand(messages.model, [row["text"] for row in MESSAGES[:7]])
    assert [(row["text"], row["label"]) for row in found] == [(row["text"], row["label"]) for row in MESSAGES[:7]]
    assert [row["prediction"] for row in found] == [label for label, _ in hand]
    assert [row["probability"] for row in found] == pytest.approx([share for _, share in hand], abs=1e-6)
    right = sum(row["prediction"] == row["label"] for row in found) / 7
    assert answer["rows"] == 7 and answer["metrics"]["test_accuracy"] == pytest.approx(right)


def test_rows_without_labels_are_predicted_alike_and_have_no_metrics(messages: Made) -> None:
    _, labelled = messages.predict(MESSAGES[:7])
    for rows in ([{"text": row["text"]} for row in MESSAGES[:7]], [{**row, "label": None} for row in MESSAGES[:7]]):
        answer, found = messages.predict(rows)
        assert answer == {"metrics": {}, "rows": 7}
        assert [row["prediction"] for row in found] == [row["prediction"] for row in labelled]
    _, comma = messages.predict([{"text": row["text"], "id": n} for n, row in enumerate(MESSAGES[:7])], ".csv")
    assert list(comma[0]) == ["text", "id", "prediction", "probability"]
    assert [row["prediction"] for row in comma] == [row["prediction"] for row in labelled]


def test_without_a_file_the_test_split_is_predicted(messages: Made) -> None:
    answer, found = messages.predict()
    assert [row["text"] for row in found] == [row["text"] for row in MESSAGES[::-1]]
    assert answer["rows"] == 12 and {"test_loss", "test_accuracy", "test_f1"} <= answer["metrics"].keys()


def test_a_label_that_the_model_does_not_know_is_named(messages: Made) -> None:
    with pytest.raises(InputError, match="has labels that the model does not know: maybe"):
        messages.predict([{"text": "win", "label": "maybe"}, *MESSAGES[:2]])


def test_numbers_are_in_the_units_of_the_data(project: Path, tiny_bert: Path) -> None:
    rows = [{"text": row["text"], "label": 100.0 + number} for number, row in enumerate(MESSAGES)]
    made = Made(project, "text-regression", tiny_bert, rows, normalize=True)
    answer, found = made.predict(rows[:5])
    assert all(90 < row["prediction"] < 122 for row in found)
    errors = [row["prediction"] - float(row["label"]) for row in found]
    assert answer["metrics"]["test_rmse"] == pytest.approx(math.sqrt(sum(e * e for e in errors) / 5), rel=1e-4)
    bare, again = made.predict([{"text": row["text"]} for row in rows[:5]])
    assert [row["prediction"] for row in again] == pytest.approx([row["prediction"] for row in found]) and not bare[
        "metrics"
    ]


def test_each_of_several_labels_has_its_probability(project: Path, tiny_bert: Path) -> None:
    names = [["a"], ["a", "b"], [], ["b"]]
    rows = [{"text": row["text"], "label": names[number % 4]} for number, row in enumerate(MESSAGES)]
    made = Made(project, "multi-label-classification", tiny_bert, rows)
    _, found = made.predict([{"text": row["text"]} for row in rows])
    assert all(
        set(row["prediction"]) <= {"a", "b"} and len(row["probability"]) == len(row["prediction"]) for row in found
    )
    assert all(0.5 < share < 1 for row in found for share in row["probability"])
    assert any(row["prediction"] for row in found)


@pytest.mark.parametrize("tags", [("B-X", "I-X", "O"), ("noun", "verb", "other")], ids=["entities", "words"])
def test_every_word_has_a_tag(project: Path, tiny_bert: Path, tags: tuple[str, ...]) -> None:
    rows = [
        {"words": (words := row["text"].split()), "tags": [tags[n % 3] for n in range(len(words))]} for row in MESSAGES
    ]
    made = Made(project, "token-classification", tiny_bert, rows)
    answer, found = made.predict(rows[:4])
    assert [len(row["prediction"]) for row in found] == [len(row["words"]) for row in rows[:4]]
    assert {tag for row in found for tag in row["prediction"]} <= set(tags) and "test_accuracy" in answer["metrics"]
    bare, again = made.predict([{"words": row["words"]} for row in rows[:4]])
    assert [row["prediction"] for row in again] == [row["prediction"] for row in found] and bare["metrics"] == {}


def test_an_answer_is_a_span_of_its_context(project: Path, tiny_bert: Path) -> None:
    rows = [
        {
            "question": "who is late",
            "context": row["text"],
            "answers": {"text": [word := row["text"].split()[1]], "answer_start": [row["text"].index(word)]},
        }
        for row in MESSAGES
    ]
    made = Made(project, "question-answering", tiny_bert, rows)
    answer, found = made.predict(rows[:4])
    assert all(row["prediction"] and row["prediction"] in row["context"] for row in found)
    right = sum(row["prediction"] == row["answers"]["text"][0] for row in found) / 4
    assert answer["metrics"]["test_exact_match"] == pytest.approx(right)
    bare, again = made.predict([{"question": row["question"], "context": row["context"]} for row in rows[:4]])
    assert len(again) == 4 and bare["metrics"] == {}


def test_a_text_is_generated_also_where_no_metric_asks_for_it(project: Path) -> None:
    model = toys.tiny_t5(project / "t5")
    rows = [{"source": "free prize call", "target": "win cash now"}, {"source": "lunch at home", "target": "bus"}] * 4
    made = Made(project, "seq2seq", model, rows, metrics=["perplexity"], max_target_length=5)
    answer, found = made.predict(rows[:3])
    assert [set(row) for row in found] == [{"source", "target", "prediction"}] * 3
    assert all(isinstance(row["prediction"], str) for row in found) and "test_perplexity" in answer["metrics"]


def test_similarities_are_those_of_the_embeddings(project: Path, tiny_bert: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="pip install 'sweepkit[embed]'")
    rows = [{"sentence1": MESSAGES[n]["text"], "sentence2": MESSAGES[n + 1]["text"], "score": n / 10} for n in range(8)]
    made = Made(project, "sentence-similarity", tiny_bert, rows)
    answer, found = made.predict(rows[:4])
    assert all(-1.001 < row["prediction"] < 1.001 for row in found)
    assert [float(row["score"]) for row in found] == [row["score"] for row in rows[:4]]
    assert "test_spearman_cosine" in answer["metrics"]
    for plain in (
        [{name: row[name] for name in ("sentence1", "sentence2")} for row in rows[:4]],
        [{**row, "score": None} for row in rows[:4]],
    ):
        answer, alone = made.predict(plain)
        assert answer == {"metrics": {}, "rows": 4}
        assert [row["prediction"] for row in alone] == pytest.approx([row["prediction"] for row in found])
    assert made.predict([{"sentence1": "win", "sentence2": "prize"}])[0] == {"metrics": {}, "rows": 1}


def test_a_similarity_needs_two_texts_and_no_negative(project: Path, tiny_bert: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="pip install 'sweepkit[embed]'")
    rows = [
        {"q": MESSAGES[n]["text"], "positive": MESSAGES[n + 2]["text"], "no": MESSAGES[n + 1]["text"]} for n in range(8)
    ]
    made = Made(project, "sentence-similarity", tiny_bert, rows, columns={"anchor": "q", "negative": "no"})
    answer, found = made.predict([{"q": row["q"], "positive": row["positive"]} for row in rows[:3]], ".csv")
    assert answer == {"metrics": {}, "rows": 3}
    assert [set(row) for row in found] == [{"q", "positive", "prediction"}] * 3


def test_what_has_no_prediction_per_row_says_so_with_its_metrics(project: Path) -> None:
    model = toys.tiny_gpt2(project / "gpt2")
    rows = [{"text": row["text"] * 4} for row in MESSAGES]
    made = Made(project, "causal-lm", model, rows, block_size=16)
    with pytest.raises(
        InputError, match=r"CausalLM\w* makes no prediction for a row by itself; metrics: .*test_perplexity"
    ):
        made.predict()
