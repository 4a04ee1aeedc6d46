"""The kinds that TRL trains: their values are those of TRL's own scripts, and their data is checked row by row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import toys
from making import Kept, spec
from sweepkit import report
from sweepkit.check.study_file import load_study
from sweepkit.study.errors import MissingExtra
from sweepkit.tasks.load import arguments_class
from sweepkit.trial.events import Checkpointed, Evaluated
from sweepkit.trial.inspect import inspect
from sweepkit.trial.objective import run_trial
from trained import RATE, TRAINING, Rows, last, ran, refused, retrained, study_file, written

pytestmark = pytest.mark.real

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
TOKENS = {"max_length": 64}


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


def rows_of(folder: Path, row: Callable[[str, str], dict[str, Any]]) -> Rows:
    """Write rows of both splits, and a chat template; return the rows."""
    counts = {"train": 32, "validation": 12}
    rows = {
        split: [row(*each) for each in toys.messages(count, seed=n)] for n, (split, count) in enumerate(counts.items())
    }
    written(folder, rows)
    (folder / "chat.jinja").write_text(TEMPLATE)
    return rows


def by_trl(folder: Path, trainer: Any, config: Any, model: Path, rows: Rows, **given: Any) -> dict[str, Any]:
    """The last evaluation of the script that TRL documents."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = TEMPLATE
    arguments = {"eval_strategy": "epoch", "save_strategy": "no", "report_to": "none", **TRAINING, **TOKENS}
    made = trainer(
        model=str(model),
        args=config(output_dir=str(folder / "plain"), learning_rate=RATE, **{**arguments, **given.pop("training", {})}),
        train_dataset=Dataset.from_list(list(rows["train"])),
        eval_dataset=Dataset.from_list(list(rows["validation"])),
        processing_class=tokenizer,
        **given,
    )
    made.train()
    return [entry for entry in made.state.log_history if "eval_loss" in entry][-1]


@pytest.mark.parametrize("format_", FORMATS)
def test_fine_tuning_reports_what_trl_reports(
    format_: str, project: Path, tiny_gpt2: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    rows = rows_of(project, FORMATS[format_])
    extra: dict[str, Any] = {**TOKENS, **({"packing": True} if format_ == "text" else {})}
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


PREFERENCES: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "texts": lambda text, label: {"prompt": text, "chosen": f" {label}", "rejected": " neither"},
    "talks": lambda text, label: {
        "prompt": talk(text, None),
        "chosen": talk(text, label)[1:],
        "rejected": talk(text, "no")[1:],
    },
}


@pytest.mark.parametrize("format_", PREFERENCES)
def test_preferences_are_trained_as_trl_trains_them(
    format_: str, project: Path, tiny_gpt2: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    rows = rows_of(project, PREFERENCES[format_])
    adapted = format_ == "talks"
    space: dict[str, Any] = {"beta": {"choices": [0.3]}, **({"peft.r": {"choices": [4]}} if adapted else {})}
    training = {**TOKENS, "disable_dropout": False, **({"peft.fan_in_fan_out": True} if adapted else {})}
    uri = "none" if adapted else f"sqlite:///{project}/mlflow.db"
    keys = {"task": {"chat_template": "chat.jinja"}, "tracking": {"uri": uri}}
    metric = "eval_rewards/accuracies"
    study, row, log = ran(study_file(project, "dpo", tiny_gpt2, metric, training=training, space=space, **keys))
    config = LoraConfig(task_type="CAUSAL_LM", r=4, fan_in_fan_out=True)
    given: dict[str, Any] = {"peft_config": config} if adapted else {}
    given["training"] = {"beta": 0.3, "disable_dropout": False}
    wanted, found = by_trl(project, DPOTrainer, DPOConfig, tiny_gpt2, rows, **given), last(log)
    for name in ("eval_loss", metric, "eval_rewards/margins", "eval_logps/chosen"):
        assert found[name] == pytest.approx(wanted[name], abs=1e-6), name
    assert row.value == found[metric] and log.started is not None and {"beta", *space} <= set(log.started.proved)
    if adapted:
        return
    client = MlflowClient(uri)
    [experiment] = [each for each in client.search_experiments() if each.name == "toy"]
    runs = client.search_runs([experiment.experiment_id])
    assert [run.data.metrics[metric] for run in runs if metric in run.data.metrics] == [row.value]
    assert metric in report.write(study).read_text()
    again = retrained(study, row, project / "exported", capsys)
    assert (again["metric"], again["value"]) == (metric, pytest.approx(row.value, abs=1e-6))


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_resumed_trial_reports_what_an_undisturbed_one_does(kind: str, project: Path, tiny_gpt2: Path) -> None:
    row = FORMATS["completion"] if kind == "sft" else PREFERENCES["texts"]
    rows_of(project, row)
    adapter = {"peft.r": 2, "peft.lora_dropout": 0.3, "peft.fan_in_fan_out": True} if kind == "sft" else {}
    study = load_study(study_file(project, kind, tiny_gpt2, training={**TOKENS, **adapter})).study
    values, whole, half, rest = {"learning_rate": RATE}, Kept(), Kept("stop"), Kept()
    assert run_trial(study, spec(project, 0, values), whole).ending == "complete"
    assert run_trial(study, spec(project, 1, values), half).ending == "stopped"
    last = next(event.path for event in half.of(Checkpointed) if event.role == "last")
    assert run_trial(study, spec(project, 1, values, resume_from=last), rest).ending == "complete"
    found, wanted = (dict(line.of(Evaluated)[-1].metrics) for line in (rest, whole))
    for name in [name for name in wanted if not name.endswith(("_runtime", "_per_second"))]:
        assert found[name] == pytest.approx(wanted[name], abs=1e-7), name


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
            "its Trainer reports perplexity, mean_token_accuracy, entropy a",
        ),
        (
            [{"text": "a"}],
            {"training": {"max_len": 5}},
            "training.max_len is not a TrainingArguments field; did you mea",
        ),
        ([{"text": "a"}], {"metric": "eval_f1"}, "objective.metric"),
        ([{"text": "a"}], {"training": {"chat_template_path": "x.jinja"}}, "set by sweepkit; see task.chat_template"),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused(
    project: Path, tiny_gpt2: Path, rows: list[dict[str, Any]], keys: dict[str, Any], message: str
) -> None:
    assert message in refused(project, "sft", tiny_gpt2, rows, **keys)


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
    rows_of(project, lambda text, label: FORMATS[format_](f"{text} {text}", label))
    study = load_study(study_file(project, "sft", tiny_gpt2, training={**TOKENS, **training})).study
    [(where, found)] = inspect(study, spec(project, 0)).problems
    assert where == "task" and message in found


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweepkit.tasks.load.package_folder", lambda name: None)
    with pytest.raises(MissingExtra, match=r"trl:SFTConfig needs an extra .* pip install 'sweepkit\[trl\]'"):
        arguments_class("trl:SFTConfig")
