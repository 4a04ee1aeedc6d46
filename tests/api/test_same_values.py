"""Values of Trainers of many makes: of the Trainer's own search, of training by hand, and of a trial, to 1e-6."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoTokenizer,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
)
from transformers.trainer_utils import default_compute_objective

import lines
import toys
from making import Kept, spec
from sweepkit.api import existing
from sweepkit.api.keywords import Keywords
from sweepkit.api.trainer_search import _Request
from sweepkit.tasks import by_value
from sweepkit.trial.inspect import inspect
from sweepkit.trial.objective import run_trial

pytestmark = pytest.mark.real
cloudpickle.register_pickle_by_value(sys.modules[__name__])

RATES = [0.02, 0.05]
Make = Callable[..., Trainer]
"""Makes a Trainer in a folder, with training arguments."""


def rates(trial: Any) -> dict[str, Any]:
    return {"learning_rate": trial.suggest_categorical("learning_rate", RATES)}


def task_of(trainer: Trainer, folder: Path) -> Any:
    """Return the Trainer as a task, after its way to another process."""
    (folder / "task").write_bytes(by_value.dumps(existing.existing_task(trainer, None, 1)))
    return by_value.loads(folder / "task", folder)


def tried(make: Make, folder: Path, rate: float) -> float:
    """Return the value of a trial."""
    trainer = make(folder)
    study = _Request(trainer, None, None, 1, "optuna", None, Keywords({}, ["minimize"])).study()
    asked = spec(folder, 0, {"learning_rate": rate}, drawn={"learning_rate": rate})
    end = run_trial(study, asked, Kept(), kind=task_of(trainer, folder))
    assert (end.ending, end.cause) == ("complete", "")
    return end.values[0]


def by_hand(make: Make, folder: Path, rate: float) -> float:
    """Return the value of a training without any search."""
    trainer = make(folder, learning_rate=rate)
    if type(trainer).__module__.startswith("trl"):
        trainer.model_init = None  # else it replaces the model that its constructor prepared
    trainer.train()
    return default_compute_objective(trainer.evaluate())


def searched(make: Make, folder: Path) -> dict[float, float]:
    """Return rate → value of the Trainer's own search, which tries each once."""
    import optuna

    grid = optuna.samplers.GridSampler({"learning_rate": RATES})
    storage = optuna.storages.InMemoryStorage()
    make(folder).hyperparameter_search(
        rates, n_trials=2, backend="optuna", sampler=grid, storage=storage, study_name="own"
    )
    trials = optuna.load_study(study_name="own", storage=storage).trials
    return {each.params["learning_rate"]: each.value for each in trials}


class Sum(Trainer):
    """A loss of its own."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        return (3 * loss, outputs) if return_outputs else 3 * loss


class TwoRates(Trainer):
    """Two optimizers in turn, as one."""

    def create_optimizer(self, model: Any = None) -> Any:
        made = [torch.optim.SGD(self.model.parameters(), lr=self.args.learning_rate) for _ in range(2)]
        made[1].param_groups[0]["momentum"] = 0.9
        turns = iter(range(10**6))
        first, second = (each.step for each in made)
        made[0].step = lambda *a, **k: (first if next(turns) % 2 else second)(*a, **k)
        self.optimizer = made[0]
        return self.optimizer


class Nudge(TrainerCallback):
    """Changes what is trained, each time it is called, and counts the calls."""

    def __init__(self, by: float) -> None:
        self.by = by

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        with torch.no_grad():
            model.a += self.by


class Nudged(Trainer):
    """Adds a callback of its own that refers to it, beside those it is given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_callback(Nudge(0.1))


def squared(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> torch.Tensor:
    found: torch.Tensor = ((outputs["logits"] - labels) ** 2).sum()
    return found


def of(kind: type[Trainer], given: dict[str, Any] | None = None, **fixed: Any) -> Make:
    def make(folder: Path, **asked: Any) -> Trainer:
        parts = {"model_init": lines.noisy, **(given or {})}
        return lines.trainer(folder, kind, parts, **{"per_device_train_batch_size": 2, **fixed, **asked})

    return make


def seq2seq(folder: Path, **asked: Any) -> Trainer:
    args = lines.arguments(folder, Seq2SeqTrainingArguments, per_device_train_batch_size=2, **asked)
    return lines.trainer(folder, Seq2SeqTrainer, {"args": args, "model_init": lines.noisy})


def adapted(folder: Path, **asked: Any) -> Trainer:
    """The model is made with an adapter."""

    def init(trial: Any) -> Any:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForSequenceClassification

        model = AutoModelForSequenceClassification.from_pretrained(folder / "bert", num_labels=2)
        return get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"]))

    toys.tiny_bert(folder / "bert")
    rows = tokenized(folder / "bert")
    return lines.trainer(folder, Trainer, {"model_init": init, "train_dataset": rows, "eval_dataset": rows}, **asked)


def tokenized(folder: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [{**tokenizer(text, padding="max_length", max_length=12), "labels": int(label == "spam")}
            for text, label in toys.messages(16)]  # fmt: skip
    return Dataset.from_list(rows)


def embedding(folder: Path, **asked: Any) -> Trainer:
    """The search that sentence-transformers documents: model and loss are made of functions."""
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss

    def init(trial: Any) -> Any:
        return SentenceTransformer(str(folder / "bert"))

    def loss(model: Any) -> Any:
        return CosineSimilarityLoss(model)

    toys.tiny_bert(folder / "bert")
    texts = [text for text, _ in toys.messages(16)]
    rows = Dataset.from_dict({"one": texts, "two": texts[::-1], "score": [float(i % 2) for i in range(16)]})
    return SentenceTransformerTrainer(
        model=None,
        args=lines.arguments(folder, Arguments, per_device_train_batch_size=4, **asked),
        train_dataset=rows,
        eval_dataset=rows,
        model_init=init,
        loss=loss,
    )


def fine_tuning(folder: Path, **asked: Any) -> Trainer:
    """TRL's class takes no model_init; a script that searches with it sets one.

    It prepares the model in its constructor, so that the Trainer's own search, which replaces the model, fails.
    """
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    def init(trial: Any) -> Any:
        return AutoModelForCausalLM.from_pretrained(folder / "gpt2")

    toys.tiny_gpt2(folder / "gpt2")
    rows = Dataset.from_list([{"text": text} for text, _ in toys.messages(16)])
    made = SFTTrainer(
        model=init(None),
        args=lines.arguments(folder, SFTConfig, max_length=32, **asked),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(folder / "gpt2"),
    )
    made.model_init = init
    return made


MAKERS: dict[str, Make] = {
    "plain": of(Trainer),
    "own loss": of(Sum),
    "loss function": of(Trainer, {"compute_loss_func": squared}),
    "two optimizers": of(TwoRates),
    "own callbacks": of(Nudged, {"callbacks": [Nudge(0.3)]}),
    "seq2seq": seq2seq,
    "adapter": adapted,
    "embeddings": embedding,
    "fine-tuning": fine_tuning,
}


@pytest.mark.parametrize("maker", MAKERS)
def test_a_trial_has_the_value_of_the_trainers_own_search_and_of_training_by_hand(maker: str, project: Path) -> None:
    make = MAKERS[maker]
    own = searched(make, project) if maker != "fine-tuning" else {}
    for rate in RATES:
        expected = by_hand(make, project, rate)
        assert tried(make, project, rate) == pytest.approx(expected, rel=1e-6), rate
        assert own.get(rate, expected) == pytest.approx(expected, rel=1e-6), rate


class Measured(Trainer):
    """Passes on a collator and metrics of its own, and gets its name for the labels from outside."""

    def __init__(self, *args: Any, metric: str = "distance", **kwargs: Any) -> None:
        self.metric = metric
        super().__init__(*args, compute_metrics=self.measured, data_collator=collated, **kwargs)
        self.add_callback(Refers(self))

    def measured(self, prediction: Any) -> dict[str, float]:
        return {self.metric: float(abs(prediction.predictions - prediction.label_ids).mean())}


class Refers(TrainerCallback):
    """Refers to its Trainer, and says so with each evaluation."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, model: Any = None, **kwargs: Any
    ) -> None:
        metrics["eval_mine"] = metrics.get("eval_mine", 0.0) + float(self.trainer.model is model)


def collated(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([row[name] for row in rows]) for name in ("x", "labels")}


def test_what_a_class_makes_itself_is_made_once_and_refers_to_the_trials_trainer(project: Path) -> None:
    mine = lines.trainer(project, Measured, {"callbacks": [Nudge(0.3)]})
    mine.add_callback(Refers(mine))
    mine.extra, mine.evaluate = "kept", mine.evaluate
    kind = task_of(mine, project)
    made = kind().trainer(model=lines.line(None), args=lines.arguments(project), callbacks=[])
    own = [type(each).__name__ for each in made.callback_handler.callbacks if type(each).__module__ == __name__]
    assert own == ["Nudge", "Refers", "Refers"]
    assert all(each.trainer is made for each in made.callback_handler.callbacks if isinstance(each, Refers))
    assert (made.extra, made.data_collator.__name__) == ("kept", "collated")
    made.train()
    assert made.evaluate()["eval_mine"] == 2


def test_the_inspection_runs_no_callback_of_a_persons_own(project: Path) -> None:
    """The metric that only a callback adds is then missing, which is noted and refuses nothing."""

    class Fails(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            raise AssertionError("called")

    class Adds(Trainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.add_callback(Fails())

    made = lines.trainer(project, Adds)
    task = existing.existing_task(made, lambda metrics: metrics["eval_mine"], 1)
    study = _Request(made, None, None, 1, "optuna", None, Keywords({}, ["minimize"])).study()
    (project / "task").write_bytes(by_value.dumps(task))
    study = study.model_copy(update={"task": study.task.model_copy(update={"pickle": "task"})}).at(project)
    found = inspect(study, spec(project, 0, {}))
    assert found.problems == ()
    assert "failed without Fails" in found.notes[0] and "eval_mine" in found.notes[0]


def test_a_part_that_holds_the_first_model_is_refused(project: Path) -> None:
    class Taught(Trainer):
        def __init__(self, *args: Any, teacher: Any = None, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.teacher = teacher if teacher is not None else torch.nn.ModuleList([self.model])

    from sweepkit import InputError

    with pytest.raises(InputError, match="teacher of Taught holds the Trainer's model, which differs between trials"):
        existing.existing_task(lines.trainer(project, Taught), None, 1)


def test_an_argument_that_no_file_can_hold_is_kept(project: Path) -> None:
    made = lines.trainer(project)
    made.args.lr_scheduler_kwargs = {"lr_lambda": collated}
    again = task_of(made, project)().trainer(model=lines.line(None), args=lines.arguments(project), callbacks=[])
    assert again.args.lr_scheduler_kwargs["lr_lambda"].__name__ == "collated"
