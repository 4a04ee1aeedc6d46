"""How often a step of a trial waits for a GPU, beside a step of a plain Trainer; seen on a CPU, which does not wait."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Trainer, TrainerCallback, TrainingArguments

from making import Kept, spec, toy_study
from sweepkit.tasks.load import task_of
from sweepkit.trial import callback
from sweepkit.trial.objective import run_trial

COPIES = {torch.Tensor.cpu: "cpu", torch.Tensor.numpy: "numpy", torch.Tensor.tolist: "tolist"}
READS = ("_local_scalar_dense", "nonzero", "equal", "masked_select")
"""What ``item``, ``bool``, ``float`` and ``int`` of a tensor come to, and what else needs values to go on."""


class Reads(TorchDispatchMode):
    """Counts where values of tensors are read, and from where."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name in READS:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


class Copies(TorchFunctionMode):
    """Counts copies to the CPU, and says of every tensor that a trial's callback looks at that it is on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Counter[str]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == torch.Tensor.device.__get__ and sys._getframe(1).f_code.co_filename == callback.__file__:
            return torch.device("cuda", 0)
        if name := COPIES.get(func):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def waits(train: Callable[[int], Any]) -> Counter[str]:
    """What ten steps more wait for; nothing is logged, evaluated or saved in them.

    By default a Trainer by itself also looks at each step whether the loss is a number, which a trial does where it logs.
    """
    counts = []
    for steps in (3, 13):
        with Reads() as reads, Copies() as copies:
            train(steps)
        counts.append(reads.found + copies.found)
    assert counts[0]  # the modes see something: what is read at the end
    return counts[1] - counts[0]


def test_a_step_of_a_trial_waits_for_a_gpu_no_more_often_than_one_of_a_plain_trainer(project: Path) -> None:
    fixed: dict[str, Any] = {"use_cpu": True, "logging_steps": 1000, "learning_rate": 1e-3}

    def trial(steps: int) -> None:
        training = {**fixed, "max_steps": steps, "eval_strategy": "steps", "eval_steps": steps}
        end = run_trial(toy_study(project, training=training, space={}), spec(project, 0), Kept())
        assert (end.ending, end.step) == ("complete", steps)

    def plain(steps: int, *callbacks: TrainerCallback) -> None:
        task = task_of(toy_study(project), {})
        quiet: dict[str, Any] = {"report_to": "none", "save_strategy": "no", "logging_nan_inf_filter": False}
        args = TrainingArguments(str(project / "plain"), max_steps=steps, **quiet, **fixed)
        Trainer(task.model_init(), args, train_dataset=task.data()["train"], callbacks=list(callbacks)).train()

    class Reading(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            assert bool((model.weight < 1e9).all())

    at_most = waits(plain)
    assert waits(trial) <= at_most
    assert waits(lambda steps: plain(steps, Reading())) > at_most  # one more at each step is seen
