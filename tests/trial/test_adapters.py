"""Every method of PEFT that a study names is what its trial trains, with the same value as PEFT by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from making import Kept, spec, toy_study
from sweepkit.study.errors import InputError
from sweepkit.tasks.adapters import configuration
from sweepkit.trial.events import Evaluated, Started
from sweepkit.trial.objective import load_best_model, run_trial
from sweepkit.trial.trial import Trial
from toys import messages, tiny_csv

pytestmark = pytest.mark.real

TARGETS = {"target_modules": ["query", "value"]}
METHODS: dict[str, dict[str, Any]] = {
    "LOHA": {"r": 2, "alpha": 4, **TARGETS},
    "IA3": {"feedforward_modules": ["output.dense"], "target_modules": ["key", "value", "output.dense"]},
    "VERA": {"r": 4, "vera_dropout": 0.1, **TARGETS},
}
TRAINING = {"num_train_epochs": 1, "learning_rate": 3e-2, "seed": 5, "use_cpu": True}


def by_peft(project: Path, model: Path, method: str) -> float:
    """The loss that a plain Trainer with ``model_init`` reports for PEFT's own model."""
    from datasets import Dataset
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    tokenizer = AutoTokenizer.from_pretrained(model)
    splits = [
        Dataset.from_list(
            [{**tokenizer(text), "labels": int(label == "spam")} for text, label in messages(count, seed)]
        )
        for count, seed in ((32, 0), (16, 1))
    ]
    config: Any = PEFT_TYPE_TO_CONFIG_MAPPING[method]  # by its text, which PEFT's enumeration equals
    trainer = Trainer(
        model_init=lambda: get_peft_model(
            AutoModelForSequenceClassification.from_pretrained(model), config(task_type="SEQ_CLS", **METHODS[method])
        ),
        args=TrainingArguments(str(project / "plain"), save_strategy="no", report_to="none", **TRAINING),
        train_dataset=splits[0],
        eval_dataset=splits[1],
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    trainer.train()
    return float(trainer.evaluate()["eval_loss"])


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_trained_as_peft_trains_it(method: str, project: Path, tiny_bert: Path) -> None:
    tiny_csv(project / "train.csv", 32, seed=0)
    tiny_csv(project / "validation.csv", 16, seed=1)
    data = {"train": "train.csv", "validation": "validation.csv"}
    study = toy_study(
        project,
        task={"path": None, "type": "text-classification", "model": str(tiny_bert), "data": data},
        training={key: value for key, value in TRAINING.items() if key != "learning_rate"},
        objective={"metric": "eval_loss", "direction": "minimize"},
    )
    values = {"learning_rate": TRAINING["learning_rate"], "peft.type": method}
    values |= {f"peft.{name}": value for name, value in METHODS[method].items()}
    line = Kept()
    end = run_trial(study, spec(project, 0, values), line)
    assert (end.ending, end.cause) == ("complete", "")
    assert {name for name in values if name.startswith("peft.")} <= set(line.of(Started)[0].proved)
    assert line.of(Evaluated)[-1].metrics["eval_loss"] == pytest.approx(by_peft(project, tiny_bert, method), abs=1e-6)
    trial = Trial(number=0, ending=end.ending, params=values)
    best = load_best_model(study, trial, project / "runs" / "toy" / "trials" / "0000" / "best")
    assert best.peft_config["default"].peft_type == method


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"type": "ADALORA"}, "peft.type: ADALORA cannot be trained here"),
        ({"type": "LORRA"}, "peft.type: there is no method LORRA; did you mean LORA?"),
        ({"type": "IA3", "r": 3}, "peft: IA3Config cannot be made: .* unexpected keyword argument 'r'"),
    ],
)
def test_what_is_no_adapter_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        configuration(values, "SEQ_CLS")
