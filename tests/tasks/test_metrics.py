"""The bundled metrics: right, plain, and safe for many processes at once."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    matthews_corrcoef,
    mean_absolute_error,
    mean_squared_error,
    precision_score,
    recall_score,
    root_mean_squared_error,
)
from transformers import EvalPrediction

from sweepkit.study.errors import InputError
from sweepkit.tasks import metrics
from sweepkit.tasks.metrics import decide
from sweepkit.tasks.task import Task

PREDICTED, TRUE = [0, 1, 1, 0, 1], [0, 1, 0, 0, 0]

EXPECTED = {
    "accuracy": {"accuracy": 0.6},
    "f1": {"f1": 0.5},
    "f1_micro": {"f1_micro": 0.6},
    "f1_macro": {"f1_macro": (0.5 + 2 / 3) / 2},
    "precision": {"precision": 1 / 3},
    "recall": {"recall": 1.0},
    "matthews_correlation": {"matthews_correlation": 1 / math.sqrt(6)},
    "mse": {"mse": 0.4},
    "rmse": {"rmse": math.sqrt(0.4)},
    "mae": {"mae": 0.4},
    "pearsonr": {"pearsonr": 1 / math.sqrt(6)},
    "spearmanr": {"spearmanr": 1 / math.sqrt(6)},
}


def test_every_bundled_metric_is_covered_here() -> None:
    assert EXPECTED.keys() == {n for n, on in metrics.BUNDLED.items() if {*on} & {"classes", "numbers"}}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_bundled_metric_returns_the_value_under_its_own_name(name: str) -> None:
    found = metrics.load(name).compute(predictions=PREDICTED, references=TRUE)
    assert found == pytest.approx(EXPECTED[name])


@pytest.mark.parametrize(
    ("name", "range_"), [("rougeLsum", (0, 1)), ("exact_match", (0, 1)), ("sacrebleu", (0, 100)), ("f1_micro", (0, 1))]
)
def test_the_range_of_a_metric_is_known(name: str, range_: tuple[float, float]) -> None:
    assert metrics.limits(f"eval_{name}") == range_


def test_a_metric_can_be_computed_again_and_again() -> None:
    accuracy = metrics.load("accuracy")
    results = [accuracy.compute(predictions=[0, 1], references=[0, right])["accuracy"] for right in (1, 0, 1)]
    assert results == [1.0, 0.5, 1.0]


def test_f1_of_several_classes_is_the_macro_average() -> None:
    found = metrics.load("f1").compute(predictions=[0, 1, 2, 2], references=[0, 1, 2, 1])
    assert found["f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_f1_without_average_is_refused() -> None:
    with pytest.raises(ValueError, match="an objective is a single number"):
        metrics.load("f1").compute(predictions=PREDICTED, references=TRUE, average=None)


@pytest.mark.parametrize("name", ["pearsonr", "spearmanr"])
def test_a_correlation_with_a_constant_is_zero(name: str) -> None:
    assert metrics.load(name).compute(predictions=[1.0, 1.0, 1.0], references=[1.0, 2.0, 3.0]) == {name: 0.0}


@pytest.mark.parametrize("name", ["pearsonr", "spearmanr"])
def test_a_correlation_of_one_row_is_zero_where_scipy_has_none(name: str) -> None:
    with pytest.raises(ValueError, match="length at least 2"):
        scipy.stats.pearsonr([1.0], [2.0])
    assert metrics.load(name).compute(predictions=[1.0], references=[2.0]) == {name: 0.0}


@pytest.mark.parametrize(
    ("name", "score"), [("precision", precision_score), ("recall", recall_score), ("f1", f1_score)]
)
@pytest.mark.parametrize(("predicted", "true"), [([0, 0], [0, 1]), ([0, 0], [0, 0]), ([0, 0, 2], [0, 1, 2])])
def test_a_class_that_is_never_predicted_scores_zero_as_in_scikit_learn_without_a_warning(
    name: str, score: Any, predicted: list[int], true: list[int]
) -> None:
    average = "binary" if max(true) < 2 else "macro"
    expected = score(true, predicted, average=average, zero_division=0)
    assert metrics.load(name).compute(predictions=predicted, references=true) == {name: expected}
    assert expected < 1


def test_a_metric_module_of_ones_own_loads_from_its_path(tmp_path: Path) -> None:
    module = tmp_path / "agreement.py"
    module.write_text(
        "import datasets\nimport evaluate\n"
        "class Agreement(evaluate.Metric):\n"
        "    def _info(self):\n"
        "        features = datasets.Features({k: datasets.Value('int64') for k in ('predictions', 'references')})\n"
        "        return evaluate.MetricInfo(description='', citation='', inputs_description='', features=features)\n"
        "    def _compute(self, predictions, references):\n"
        "        return {'agreement': sum(p == r for p, r in zip(predictions, references))}\n"
    )
    assert metrics.load(str(module)).compute(predictions=PREDICTED, references=TRUE) == {"agreement": 3}


def test_an_unknown_metric_names_the_bundled_ones_and_the_nearest() -> None:
    with pytest.raises(InputError, match=r"metric acuracy cannot be loaded .* did you mean accuracy\?"):
        metrics.load("acuracy")


@pytest.mark.real
def test_two_processes_computing_at_once_do_not_disturb_each_other() -> None:
    code = (
        "import json, sys; from sweepkit.tasks import metrics; n = int(sys.argv[1])\n"
        "f = metrics.load('accuracy')\n"
        "print(json.dumps([f.compute(predictions=[1] * 10, references=[1] * n + [0] * (10 - n))['accuracy']"
        " for _ in range(20)]))"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(n)], stdout=subprocess.PIPE) for n in (3, 8)]
    results = [json.loads(process.communicate(timeout=600)[0]) for process in started]
    assert results == [[n / 10] * 20 for n in (3, 8)]


@pytest.mark.real
def test_importing_metrics_imports_nothing_heavy() -> None:
    code = "import sys, sweepkit.tasks.metrics; print(sorted({'numpy', 'evaluate', 'datasets', 'sklearn'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_labels_of_minus_100_are_left_out() -> None:
    decided = decide(np.eye(3)[None], np.array([[0, -100, 1]]))
    assert (decided.of("accuracy").tolist(), decided.references.tolist()) == ([0, 2], [0, 1])


def test_of_a_tuple_of_outputs_the_first_counts() -> None:
    assert decide((np.array([[0.0, 1.0]]), np.zeros((1, 7))), np.array([1])).of("f1").tolist() == [1]


@pytest.mark.parametrize("labels", [np.array([1, 0]), np.array([1.0, 2.0])])
def test_outputs_that_fit_no_label_are_refused(labels: Any) -> None:
    with pytest.raises(ValueError, match="override compute_metrics"):
        decide(np.zeros((2, 3, 4)), labels)


def test_batches_in_a_list_are_joined() -> None:
    decided = decide([(LOGITS[:40], None), (LOGITS[40:], None)], [TOPICS[:40], TOPICS[40:]])
    assert decided.rule == "threshold 0 on 3 logits" and decided.references.tolist() == TOPICS.tolist()


def test_one_metric_of_several_arrays_of_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="there are 2 arrays of labels; override compute_metrics"):
        decide((LOGITS, LOGITS), (CLASSES, CLASSES))


def test_outputs_of_a_model_trained_on_numbers_are_no_logits() -> None:
    scored = Scored(metrics=["accuracy"])
    scored._config = SimpleNamespace(problem_type="regression")
    with pytest.raises(ValueError, match="accuracy compares classes, but outputs and labels are numbers as they are"):
        scored.compute_metrics(EvalPrediction(LOGITS[:, :1], ANSWERS.astype(float)))


def test_outputs_that_may_be_probabilities_are_named() -> None:
    assert decide(1 / (1 + np.exp(-LOGITS)), TOPICS).rule.endswith("as probabilities do, whose threshold would be 0.5")


def test_several_numbers_per_row_are_averaged_as_in_scikit_learn_and_have_no_correlation() -> None:
    labels = DICE.normal(size=(60, 3)) * [1, 5, 25]
    assert value("rmse", LOGITS, labels) == root_mean_squared_error(labels, LOGITS)
    with pytest.raises(ValueError, match="a correlation compares one number per row"):
        value("pearsonr", LOGITS, labels)


DICE = np.random.default_rng(0)
LOGITS = DICE.normal(size=(60, 3))
CLASSES = DICE.integers(0, 3, 60)
TOPICS = DICE.integers(0, 2, (60, 3))
ANSWERS = DICE.integers(0, 2, 60)
AMOUNTS = DICE.normal(size=60)


class Scored(Task):
    """A task that has nothing but metrics."""


def value(metric: str, outputs: Any, labels: Any) -> float:
    """The metric as a trial reports it."""
    return Scored(metrics=[metric]).compute_metrics(EvalPrediction(outputs, labels))[metric]


@pytest.mark.parametrize(
    ("outputs", "labels", "predicted", "average", "rule"),
    [
        (LOGITS, CLASSES, LOGITS.argmax(1), "macro", "argmax over 3 classes"),
        (LOGITS[:, :2], ANSWERS, LOGITS[:, :2].argmax(1), "binary", "argmax over 2 classes"),
        (LOGITS, TOPICS.astype(np.float32), (LOGITS > 0).astype(int), "macro", "threshold 0 on 3 logits"),
        (LOGITS, TOPICS, (LOGITS > 0).astype(int), "macro", "threshold 0 on 3 logits"),
        (LOGITS[:, :1], ANSWERS, (LOGITS[:, 0] > 0).astype(int), "binary", "threshold 0 on one logit"),
        (LOGITS[:, :1], ANSWERS.astype(float), (LOGITS[:, 0] > 0).astype(int), "binary", "threshold 0 on one logit"),
        (LOGITS[:, 0], ANSWERS, (LOGITS[:, 0] > 0).astype(int), "binary", "threshold 0 on one logit"),
        (LOGITS.argmax(1), CLASSES, LOGITS.argmax(1), "macro", "class numbers as they are"),
    ],
)
def test_metrics_of_classes_are_scikit_learns_for_every_kind_of_output(
    outputs: Any, labels: Any, predicted: Any, average: str, rule: str
) -> None:
    assert decide(outputs, labels).rule == rule
    assert value("accuracy", outputs, labels) == accuracy_score(labels, predicted)
    for name, score in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        assert value(name, outputs, labels) == score(labels, predicted, average=average, zero_division=0)
    if predicted.ndim == 1:
        assert value("matthews_correlation", outputs, labels) == matthews_corrcoef(labels, predicted)


@pytest.mark.parametrize("outputs", [LOGITS[:, :1], LOGITS[:, 0]])
@pytest.mark.parametrize("labels", [AMOUNTS, ANSWERS.astype(float)])
def test_metrics_of_numbers_compare_the_outputs_themselves(outputs: Any, labels: Any) -> None:
    numbers = LOGITS[:, 0]
    assert value("mse", outputs, labels) == mean_squared_error(labels, numbers)
    assert value("mae", outputs, labels) == mean_absolute_error(labels, numbers)
    assert value("rmse", outputs, labels) == root_mean_squared_error(labels, numbers)
    assert value("pearsonr", outputs, labels) == scipy.stats.pearsonr(numbers, labels).statistic
    assert value("spearmanr", outputs, labels) == scipy.stats.spearmanr(numbers, labels).statistic


def test_several_labels_of_which_some_are_ignored_count_one_by_one() -> None:
    labels = TOPICS.copy()
    labels[:5, 0] = -100
    kept = labels != -100
    assert value("accuracy", LOGITS, labels) == accuracy_score(labels[kept], (LOGITS > 0)[kept])


@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews_correlation"])
def test_a_number_is_never_compared_as_a_class(metric: str) -> None:
    with pytest.raises(ValueError, match=f"{metric} compares classes, but outputs and labels are numbers as they are"):
        value(metric, LOGITS[:, 0], AMOUNTS)


def test_a_metric_module_that_would_cut_numbers_to_integers_is_refused(tmp_path: Path) -> None:
    module = tmp_path / "cut.py"
    module.write_text(
        "import datasets\nimport evaluate\n"
        "class Cut(evaluate.Metric):\n"
        "    def _info(self):\n"
        "        features = datasets.Features({k: datasets.Value('int32') for k in ('predictions', 'references')})\n"
        "        return evaluate.MetricInfo(description='', citation='', inputs_description='', features=features)\n"
        "    def _compute(self, predictions, references):\n"
        "        return {'cut': 0.0}\n"
    )
    with pytest.raises(ValueError, match="takes int32 predictions, but the outputs are numbers"):
        Scored(metrics=[str(module)]).compute_metrics(EvalPrediction(LOGITS[:, 0], AMOUNTS))
