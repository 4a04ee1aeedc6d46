"""The kinds that TRL trains: their values are those of TRL's own scripts, and their data is checked row by row."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import toys
from making import spec
from sweepkit.check.study_file import load_study
from sweepkit.driver.run import Replacements, run_checked
from sweepkit.report.export import export
from sweepkit.report.rows import read
from sweepkit.study.errors import InputError, MissingExtra, StudyFileError
from sweepkit.study.study import StudyData, TaskSpec
from sweepkit.tasks.load import arguments_class, load_task, task_class
from sweepkit.trial.inspect import inspect
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Trial

pytestmark = [
    pytest.mark.real,
    # TRL and PEFT ask for what transformers 5.23 calls otherwise.
    pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning"),
]

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
TRAINING = {"num_train_epochs": 2, "per_device_train_batch_size": 8, "max_length": 64, "use_cpu": True, "seed": 3}
RATE = 3e-3


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.tiny_gpt2(tmp_path_factory.mktemp("models") / "tiny-gpt2")


def talk(question: str, answer: str | None) -> list[dict[str, str]]:
    said = {"user": question, **({} if answer is None else {"assistant": answer})}
    return [{"role": role, "content": content} for role, content in said.items()]


FORMATS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "text": lambda text, label: {"text": f"{text} is {label}"},
    "completion": lambda text, label: {"prompt": f"{text} is", "completion": f" {label}"},
    "messages": lambda text, label: {"messages": talk(text, label)},
    "conversations": lambda text, label: {"prompt": talk(text, None), "completion": talk(text, label)[1:]},
}


def written(folder: Path, row: Callable[[str, str], dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Write rows of both splits; return them."""
    counts = {"train": 32, "validation": 12}
    rows = {
        split: [row(*each) for each in toys.messages(count, seed=n)] for n, (split, count) in enumerate(counts.items())
    }
    for split, part in rows.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in part))
    (folder / "chat.jinja").write_text(TEMPLATE)
    return rows


def study_file(folder: Path, kind: str, model: Path, metric: str = "eval_loss", **keys: Any) -> Path:
    """Write a study of one configuration of the rows that :func:`written` wrote."""
    task = {
        "type": kind,
        "model": str(model),
        "data": {"train": "train.jsonl", "validation": "validation.jsonl"},
        **keys.pop("task", {}),
    }
    space = {"learning_rate": {"choices": [RATE]}, **keys.pop("space", {})}
    study = {
        "name": "toy",
        "task": task,
        "training": {**TRAINING, **keys.pop("training", {})},
        "objective": {
            "metric": metric,
            "direction": "minimize" if metric == "eval_loss" else "maximize",
            "value": "last",
        },
        "space": space,
        "sampler": {"type": "random"},
        "budget": {"trials": 1},
        "tracking": {"uri": "none"},
        **keys,
    }
    file = folder / "study.yaml"
    file.write_text(json.dumps(study))
    return file


def ran(file: Path) -> tuple[StudyData, Trial, TrialLog]:
    """Check and run a study of one trial, in this process."""
    checked = load_study(file)
    [row] = run_checked(checked, instead=Replacements(task=task_class(checked.study.task, checked.study.home))).rows
    log = TrialLog(checked.study.place.trial(0))
    assert row.ending == "complete", log.finished
    return checked.study, row, log


def last(log: TrialLog) -> dict[str, float]:
    return dict(log.evaluations[-1].metrics)


def by_trl(folder: Path, trainer: Any, config: Any, model: Path, rows: dict[str, Any], **given: Any) -> dict[str, Any]:
    """The last evaluation of the script that TRL documents."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = TEMPLATE
    arguments = {"eval_strategy": "epoch", "save_strategy": "no", "report_to": "none", **TRAINING}
    made = trainer(
        model=str(model),
        args=config(output_dir=str(folder / "plain"), learning_rate=RATE, **{**arguments, **given.pop("training", {})}),
        train_dataset=Dataset.from_list(rows["train"]),
        eval_dataset=Dataset.from_list(rows["validation"]),
        processing_class=tokenizer,
        **given,
    )
    made.train()
    return [entry for entry in made.state.log_history if "eval_loss" in entry][-1]


def retrained(study: StudyData, row: Trial, folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What the exported script prints when it has trained the trial again."""
    export(study, read(study), row, folder)
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", "--output", str(folder / "retrained")])
        runpy.run_path(str(folder / "train.py"), run_name="__main__")
    return dict(json.loads(capsys.readouterr().out.strip().splitlines()[-1]))


@pytest.mark.parametrize("format_", FORMATS)
def test_fine_tuning_reports_what_trl_reports(
    format_: str, project: Path, tiny_gpt2: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    rows = written(project, FORMATS[format_])
    extra: dict[str, Any] = {"packing": True} if format_ == "text" else {}
    adapted = format_ in (
        "completion",
        "conversations",
    )  # trained through an adapter, whose weights and dropout are random
    space = {"peft.r": {"choices": [4]}, "peft.lora_dropout": {"choices": [0.2]}} if adapted else {}
    extra |= {"peft.fan_in_fan_out": True} if adapted else {}
    file = study_file(project, "sft", tiny_gpt2, training=extra, space=space, task={"chat_template": "chat.jinja"})
    study, row, log = ran(file)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_dropout=0.2, fan_in_fan_out=True)
    given: dict[str, Any] = {"peft_config": config} if adapted else {"training": extra}
    wanted = by_trl(project, SFTTrainer, SFTConfig, tiny_gpt2, rows, **given)
    found = last(log)
    for name in ("eval_loss", "eval_mean_token_accuracy", "eval_entropy"):
        assert found[name] == pytest.approx(wanted[name], abs=1e-6), name
    assert row.value == found["eval_loss"] and found["eval_perplexity"] > 1
    assert log.started is not None and (not adapted or {"peft.r", "peft.lora_dropout"} <= set(log.started.proved))
    if format_ == "completion":
        again = retrained(study, row, project / "exported", capsys)
        assert (again["metric"], again["value"]) == ("eval_loss", pytest.approx(row.value, abs=1e-6))


def refused(folder: Path, model: Path, rows: list[dict[str, Any]], kind: str = "sft", **keys: Any) -> str:
    """Why a study of these rows is refused: by its check, else when its data is prepared."""
    (folder / "train.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    (folder / "validation.jsonl").write_text((folder / "train.jsonl").read_text())
    try:
        load_study(study_file(folder, kind, model, **keys))
    except StudyFileError as error:
        return "\n".join(f"{each.path} {each.message}" for each in error.problems)
    task = {"model": str(model), "data": {"path": "train.jsonl"}, **keys.get("task", {})}
    with pytest.raises(InputError) as failed:
        load_task(TaskSpec(type=kind, **task), folder).data()
    return str(failed.value)


@pytest.mark.parametrize(
    ("rows", "keys", "message"),
    [
        (
            [{"question": "a", "answer": "b"}],
            {},
            "task.data train.jsonl: the columns are question, answer; needed are messages or prompt, completion or text "
            "(others are named by task.columns)",
        ),
        (
            [{"question": "a", "answer": "b"}],
            {"task": {"columns": {"prompt": "question", "completion": "reply"}}},
            "task.columns train.jsonl: there is no column reply, which task.columns names; there are question, answer",
        ),
        (
            [{"text": "a"}],
            {"task": {"columns": {"txt": "text"}}},
            "task.columns train.jsonl: txt in task.columns is none of the task's columns",
        ),
        (
            [{"messages": talk("a", "b")}, {"messages": [{"from": "human", "value": "a"}]}],
            {},
            "task.data: row 2 of train: messages needs a list of messages {role: user or assistant or system, content: "
            "text}, got {",
        ),
        ([{"text": "a"}, {"text": " "}], {}, "task.data: row 2 of train: text is empty; complete or remove it"),
        ([{"prompt": "a", "completion": talk("a", "b")}] * 2, {}, "prompt and completion are texts or messages, both"),
        (
            [{"prompt": "a", "completion": None}, {"prompt": "a", "completion": "b"}],
            {},
            "1 of 2 rows of train have no co",
        ),
        (
            [{"text": "a"}],
            {"task": {"metrics": ["f1"]}},
            "TRL reports perplexity, mean_token_accuracy, entropy and no o",
        ),
        (
            [{"text": "a"}],
            {"training": {"max_len": 5}},
            "training.max_len is not a TrainingArguments field; did you mea",
        ),
        ([{"text": "a"}], {"metric": "eval_f1"}, "objective.metric"),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused(
    project: Path, tiny_gpt2: Path, rows: list[dict[str, Any]], keys: dict[str, Any], message: str
) -> None:
    assert message in refused(project, tiny_gpt2, rows, **keys)


@pytest.mark.parametrize(
    ("format_", "training", "message"),
    [
        (
            "messages",
            {},
            "task.chat_template: messages are conversations, and the model's tokenizer has no chat template",
        ),
        (
            "text",
            {"max_length": 512},
            "training.max_length: the model reads at most 64 tokens, and a row of train has 7",
        ),
    ],
)
def test_what_the_model_cannot_read_is_refused_before_the_first_trial(
    format_: str, training: dict[str, Any], message: str, project: Path, tiny_gpt2: Path
) -> None:
    written(project, lambda text, label: FORMATS[format_](f"{text} {text}", label))
    study = load_study(study_file(project, "sft", tiny_gpt2, training=training)).study
    [(where, found)] = inspect(study, spec(project, 0)).problems
    assert where == "task" and message in found


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweepkit.tasks.load.package_folder", lambda name: None)
    with pytest.raises(MissingExtra, match=r"trl:SFTConfig needs an extra .* pip install 'sweepkit\[trl\]'"):
        arguments_class("trl:SFTConfig")
