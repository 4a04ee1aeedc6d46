"""Who makes the optimizer, the scheduler and the loader decides whether another value there is a fault or intended."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
import transformers.trainer_optimizer
from torch import nn
from transformers import Trainer, TrainerCallback
from transformers.optimization import Adafactor, AdafactorSchedule

from making import Kept, spec, toy_study
from sweepkit.trial.events import Finished, Started
from sweepkit.trial.objective import run_trial
from toy_tasks import Quadratic

pytestmark = pytest.mark.real


class Net(nn.Module):
    """Decaying weights, a norm and biases that do not decay, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 1)

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.head(self.norm(self.body(inputs)))[:, 0]
        return {"loss": ((logits - labels) ** 2).mean(), "logits": logits}


class Trained(Quadratic):
    """Trains a net with a Trainer that ``make`` returns."""

    make: ClassVar[Callable[..., Trainer]] = Trainer
    only: ClassVar[str] = ""

    def model_init(self, **config: Any) -> Any:
        net = Net()
        for name, parameter in net.named_parameters():
            parameter.requires_grad = self.only in name
        return net

    def trainer(self, **kwargs: Any) -> Trainer:
        return type(self).make(**kwargs)


def trained(
    project: Path,
    make: Callable[..., Trainer] = Trainer,
    sampled: dict[str, Any] | None = None,
    only: str = "",
    **keys: Any,
) -> tuple[Finished, Kept]:
    """Train two steps with the Trainer that ``make`` returns, of parameters with ``only`` in their names."""
    kind = type("Made", (Trained,), {"make": staticmethod(make), "only": only, "__module__": __name__})
    training = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2}
    study = toy_study(project, training=training, objective={"metric": "eval_loss", "direction": "minimize"})
    line = Kept(keys.pop("answer", "continue"))
    return run_trial(study, spec(project, 0, sampled, **keys), line, kind=kind), line


def rates(kwargs: dict[str, Any], ratio: float) -> list[dict[str, Any]]:
    """Param groups of the person's own: the head learns at ``ratio`` times the rate."""
    model, rate = kwargs["model"], kwargs["args"].learning_rate
    rest = [parameter for name, parameter in model.named_parameters() if "head" not in name]
    return [{"params": rest, "lr": rate}, {"params": list(model.head.parameters()), "lr": rate * ratio}]


def given(ratio: float, scheduler: Callable[[Any], Any] | None = None) -> Callable[..., Trainer]:
    """A Trainer that is given an optimizer, and a scheduler where there is one."""

    def make(**kwargs: Any) -> Trainer:
        optimizer = torch.optim.AdamW(rates(kwargs, ratio))
        return Trainer(**kwargs, optimizers=(optimizer, scheduler and scheduler(optimizer)))

    return make


def constant(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


def relative(**kwargs: Any) -> Trainer:
    optimizer = Adafactor(kwargs["model"].parameters(), lr=None, relative_step=True, warmup_init=True)
    return Trainer(**kwargs, optimizers=(optimizer, AdafactorSchedule(optimizer)))


def by_class(**kwargs: Any) -> Trainer:
    return Trainer(**kwargs, optimizer_cls_and_kwargs=(torch.optim.NAdam, {"lr": kwargs["args"].learning_rate}))


class LayerWise(Trainer):
    """The rate decays from layer to layer."""

    def create_optimizer(self, model: Any = None) -> Any:
        rate = self.args.learning_rate
        layers = zip(self.model.children(), (0.25, 0.5, 1.0), strict=True)
        groups = [{"params": list(layer.parameters()), "lr": rate * share} for layer, share in layers]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=self.args.weight_decay)
        return self.optimizer


class Calling(Trainer):
    """Leaves the optimizer as it is."""

    def create_optimizer(self, model: Any = None) -> Any:
        return super().create_optimizer(model)


class Mapped(Trainer):
    """Groups parameters by a mapping of patterns, as sentence-transformers' Trainer does."""

    def get_optimizer_cls_and_kwargs(self, args: Any, model: Any = None) -> tuple[Any, Any]:  # type: ignore[override]  # as there
        kind, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, model)
        rest = [parameter for name, parameter in model.named_parameters() if "head" not in name]
        groups = [{"params": rest}, {"params": list(model.head.parameters()), "lr": 1e-2}]
        return kind, {**kwargs, "optimizer_dict": groups}


class Undecayed(Trainer):
    def get_decay_parameter_names(self, model: Any) -> list[str]:
        return []


class OneCycle(Trainer):
    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        rate = self.args.learning_rate
        self.lr_scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, rate, total_steps=num_training_steps)
        return self.lr_scheduler


class Halves(Trainer):
    """Its loader draws batches of half the size."""

    def get_train_dataloader(self) -> Any:
        loader = torch.utils.data.DataLoader(
            self.train_dataset, batch_size=self.args.per_device_train_batch_size // 2, collate_fn=self.data_collator
        )
        return self.accelerator.prepare(loader)


class _Slow(TrainerCallback):
    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"] = args.learning_rate / 2


def slowed(**kwargs: Any) -> Trainer:
    trainer = Trainer(**kwargs)
    trainer.add_callback(_Slow())
    return trainer


ADAM = {"learning_rate": 3e-3, "weight_decay": 0.1, "adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-6}
RATE = {"learning_rate": 3e-3}
WARM = {"warmup_steps": 2}
TABLE: dict[str, tuple[Callable[..., Trainer], dict[str, Any], set[str]]] = {
    # who makes it: the Trainer, what is sampled, what of it is not proved
    "adamw": (Trainer, {**ADAM, **WARM, "optim": "adamw_torch", "lr_scheduler_type": "cosine"}, set()),
    "no decay, no warm-up": (Trainer, {"weight_decay": 0.0, "warmup_steps": 0}, set()),
    "adafactor": (Trainer, {**ADAM, "optim": "adafactor"}, {"adam_beta1", "adam_beta2", "adam_epsilon"}),
    "sgd": (Trainer, {**ADAM, "optim": "sgd"}, {"adam_beta1", "adam_beta2", "adam_epsilon"}),
    "rmsprop": (Trainer, {**ADAM, "optim": "rmsprop"}, {"adam_beta1", "adam_beta2", "adam_epsilon"}),
    "constant rate": (Trainer, {**RATE, **WARM, "lr_scheduler_type": "constant"}, {"warmup_steps"}),
    "plateau": (Trainer, {**RATE, **WARM, "lr_scheduler_type": "reduce_lr_on_plateau"}, {"warmup_steps"}),
    "warm-up to the end": (Trainer, {**RATE, "warmup_steps": 9}, {"warmup_steps"}),
    "one rate given": (given(1), {**ADAM, **WARM}, ADAM.keys() - {"learning_rate"}),
    "two rates given": (given(4), {**RATE, **WARM}, {"learning_rate"}),
    "scheduler given": (given(1, constant), {**RATE, **WARM}, {"warmup_steps"}),
    "relative steps": (relative, {**RATE, **WARM}, {"learning_rate", "warmup_steps"}),
    "class given": (by_class, {**ADAM, "optim": "sgd"}, {"adam_beta1", "adam_beta2", "adam_epsilon", "optim"}),
    "layer-wise": (LayerWise, {**RATE, "weight_decay": 0.1, "optim": "sgd"}, {"learning_rate", "optim"}),
    "calls super": (Calling, {**ADAM, "optim": "adamw_torch"}, {"optim"}),
    "mapping of rates": (Mapped, RATE, {"learning_rate"}),
    "own decaying parameters": (Undecayed, {**RATE, "weight_decay": 0.1}, {"weight_decay"}),
    "one cycle": (OneCycle, {**RATE, **WARM}, {"learning_rate", "warmup_steps"}),
    "changed by a callback": (slowed, RATE, {"learning_rate"}),
    "own loader": (Halves, {"per_device_train_batch_size": 8}, {"per_device_train_batch_size"}),
    "converted": (
        Trainer,
        {
            "include_num_input_tokens_seen": True,
            "accelerator_config": {"even_batches": False},
            "debug": "underflow_overflow",
        },
        {"include_num_input_tokens_seen"},
    ),
}


@pytest.mark.parametrize(("make", "sampled", "unproved"), TABLE.values(), ids=TABLE)
def test_what_can_be_proved_depends_on_who_makes_it(
    project: Path, make: Callable[..., Trainer], sampled: dict[str, Any], unproved: set[str]
) -> None:
    end, line = trained(project, make, sampled)
    assert (end.ending, end.cause) == ("complete", "")
    [started] = line.of(Started)
    assert sampled.keys() & set(started.unproved) == unproved
    assert sampled.keys() - unproved <= set(started.proved)


def test_a_decay_of_which_no_trained_parameter_has_any_is_not_proved(project: Path) -> None:
    end, line = trained(project, sampled={"weight_decay": 0.1}, only="bias")
    [started] = line.of(Started)
    assert end.ending == "complete"
    assert "weight_decay" in started.unproved and "learning_rate" in started.proved


class LowRank(torch.optim.AdamW):
    """Takes what galore_torch.GaLoreAdamW takes."""

    def __init__(self, params: Any, lr: float = 1e-3, betas: Any = (0.9, 0.999), eps: float = 1e-6) -> None:
        super().__init__(params, lr, betas, eps, weight_decay=0.0)


class ScheduleFree(torch.optim.AdamW):
    """Counts its steps in the param groups, as schedulefree.AdamWScheduleFree does."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: Any = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        warmup_steps: float = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
        for group in self.param_groups:
            group |= {"warmup_steps": warmup_steps, "k": 0}

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["k"] += 1
        return super().step(closure)

    def train(self) -> None:
        """Do nothing: the stand-in has no averaged weights."""

    eval = train


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for galore_torch and schedulefree, which are optional and not installed here."""
    for module, names, kind in (
        ("galore_torch", ("GaLoreAdamW", "GaLoreAdamW8bit", "GaLoreAdafactor"), LowRank),
        ("schedulefree", ("AdamWScheduleFree", "SGDScheduleFree"), ScheduleFree),
    ):
        stand_in = ModuleType(module)
        vars(stand_in).update(dict.fromkeys(names, kind))
        monkeypatch.setitem(sys.modules, module, stand_in)
        monkeypatch.setattr(transformers.trainer_optimizer, f"is_{module}_available", lambda *_: True)


GALORE = {"learning_rate": 3e-3, "optim": "galore_adamw", "optim_target_modules": ["body"], "optim_args": "rank=2"}
FREE = {**ADAM, "optim": "schedule_free_adamw", "lr_scheduler_type": "constant"}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("sampled", [GALORE, {**FREE, "warmup_steps": 2}], ids=["galore", "schedule-free"])
def test_values_in_the_groups_of_an_optional_optimizer_are_proved(project: Path, sampled: dict[str, Any]) -> None:
    end, line = trained(project, sampled=sampled)
    assert (end.ending, end.cause) == ("complete", "")
    assert sampled.keys() <= set(line.of(Started)[0].proved)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("sampled", "cause"),
    [
        ({**GALORE, "weight_decay": 0.1}, "weight_decay: expected 0.1, found 0.0"),
        ({**GALORE, "adam_beta1": 0.8}, "adam_beta1: expected 0.8, found 0.9"),
        ({**FREE, "warmup_steps": 0.5}, "warmup_steps: expected 0.5, found 0.5 steps in the optimizer"),
    ],
    ids=["decay", "beta", "ratio"],
)
def test_a_value_that_transformers_does_not_pass_on_fails_the_trial(
    project: Path, sampled: dict[str, Any], cause: str
) -> None:
    end, _ = trained(project, sampled=sampled)
    assert (end.ending, end.cause) == ("failed", f"what is trained is not what was sampled: {cause}")


@pytest.mark.usefixtures("installed")
def test_a_resumed_optimizer_keeps_the_state_in_its_groups_and_gets_the_changed_values(project: Path) -> None:
    trainers: list[Trainer] = []

    def make(**kwargs: Any) -> Trainer:
        trainers.append(Trainer(**kwargs))
        return trainers[-1]

    assert trained(project, make, FREE, answer="stop")[0].ending == "stopped"
    checkpoint = project / "runs/toy/trials/0000/last/checkpoint-2"
    end, line = trained(project, make, {**FREE, "weight_decay": 0.2}, resume_from=str(checkpoint))
    assert (end.ending, end.cause) == ("complete", "")
    assert "weight_decay" in line.of(Started)[0].proved
    [decaying, *_] = trainers[-1].optimizer.param_groups  # type: ignore[union-attr]  # exists after training
    assert (decaying["k"], decaying["weight_decay"]) == (4, 0.2)


# peft asks transformers by a name that transformers is giving up.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_the_rates_of_lora_plus_are_the_persons(project: Path) -> None:
    from peft.optimizers import create_loraplus_optimizer

    def make(**kwargs: Any) -> Trainer:
        options = {"optimizer_cls": torch.optim.AdamW, "lr": kwargs["args"].learning_rate, "loraplus_lr_ratio": 16}
        return Trainer(**kwargs, optimizers=(create_loraplus_optimizer(kwargs["model"], **options), None))

    end, line = trained(project, make, {**RATE, "peft.r": 2, "peft.target_modules": ["body"]})
    [started] = line.of(Started)
    assert (end.ending, end.cause) == ("complete", "")
    assert {"peft.r", "peft.target_modules"} <= set(started.proved) and "learning_rate" in started.unproved
