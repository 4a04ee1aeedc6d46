"""Kinds that store more columns than a model reads, or have a head of their own, train with every usual argument."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from by_hand import reported
from toy_kind import ROWS

pytestmark = pytest.mark.real


@pytest.mark.parametrize("kind", ["token-classification", "multi-label-classification", "question-answering"])
def test_columns_for_metrics_do_not_reach_the_model(kind: str, project: Path, tiny_bert: Path) -> None:
    (project / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[kind]))
    task: dict[str, Any] = {"type": kind, "model": str(tiny_bert), "data": {"path": "rows.jsonl"}}
    once = {"num_train_epochs": 1}
    plain, whole = (reported(project, task, remove_unused_columns=flag, **once) for flag in (True, False))
    varying = ("runtime", "per_second")
    assert {k: v for k, v in plain.items() if not k.endswith(varying)} == {
        k: v for k, v in whole.items() if not k.endswith(varying)
    }


@pytest.mark.parametrize("kind", ["token-classification", "question-answering"])
def test_an_adapter_on_all_linear_layers_leaves_the_head_out(kind: str, project: Path, tiny_bert: Path) -> None:
    (project / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[kind]))
    task: dict[str, Any] = {"type": kind, "model": str(tiny_bert), "data": {"path": "rows.jsonl"}}
    found = reported(project, task, num_train_epochs=1, **{"peft.r": 2, "peft.target_modules": "all-linear"})
    assert 0 <= found["eval_f1"] <= 1
