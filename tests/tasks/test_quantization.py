"""Weights in few bits: refused in words where they cannot be loaded; what is asked for reaches ``from_pretrained``.

No test loads any: bitsandbytes and a GPU are needed for that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sweepkit.check.study_file import load_study
from sweepkit.study.errors import InputError, StudyFileError
from sweepkit.study.study import TaskSpec
from sweepkit.tasks import quantization
from sweepkit.tasks.load import load_task
from toys import tiny_csv

STUDY = """name: few-bits
task: {{type: text-classification, model: {model}, data: {{path: m.csv}}, quantization: {{load_in_8bit: true}}}}
training: {{num_train_epochs: 1}}
objective: {{metric: eval_accuracy, direction: maximize}}
space: {{learning_rate: {{low: 1e-5, high: 1e-3, log: true}}}}
sampler: {{type: random}}
budget: {{trials: 1}}
"""


def test_what_is_missing_is_told_by_the_check(project: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "package_folder", lambda name: None)
    tiny_csv(project / "m.csv", 8)
    (project / "study.yaml").write_text(STUDY.format(model=tiny_bert))
    with pytest.raises(StudyFileError) as refused:
        load_study("study.yaml")
    assert [(each.path, each.message) for each in refused.value.problems] == [
        ("task.quantization", "needs bitsandbytes, which is not installed: pip install bitsandbytes"),
        (
            "task.quantization",
            "quantized weights are not trained themselves; add an adapter, for example peft.r: 16 in training",
        ),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"load_in_8bits": True}, "BitsAndBytesConfig has no field load_in_8bits; did you mean load_in_8bit?"),
        ({"load_in_8bit": True}, "quantized weights need a GPU, and a trial sees none; see backend.gpus_per_trial"),
    ],
)
def test_what_cannot_be_loaded_is_refused(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "package_folder", lambda name: Path())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=message.replace("?", ".")):
        quantization.configuration(options)


def test_what_is_asked_for_reaches_the_models_loading(
    project: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "package_folder", lambda name: Path())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked: dict[str, Any] = {}

    def load(auto: Any, ref: str, home: Path, **loading: Any) -> tuple[None, dict[str, list[Any]]]:
        asked.update(loading)
        return None, {"mismatched_keys": []}

    monkeypatch.setattr("sweepkit.tasks.models._pretrained", load)
    monkeypatch.setattr("sweepkit.tasks.models.configuration", lambda *_, **__: None)
    spec = {
        "type": "causal-lm",
        "model": str(tiny_bert),
        "data": {"path": "m.csv"},
        "quantization": {"load_in_8bit": True},
    }
    load_task(TaskSpec.model_validate(spec), project).model_init()
    assert asked["quantization_config"].load_in_8bit and not asked["quantization_config"].load_in_4bit
