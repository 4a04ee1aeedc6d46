"""A Task that trains in about a millisecond per step and does on demand whatever a bad task does.

Its objective is known beforehand (:func:`score`, or any ``curve``), so that tests of search, pruning, checkpoints,
resume and faults compare whole values. Knows nothing of how trials are run.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import resource
import shlex
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import psutil
import torch
from datasets import Dataset, DatasetDict
from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainerCallback

from sweepkit.tasks.task import Task


def score(learning_rate: float, x: float = 0.5, progress: float = 1.0) -> float:
    """Return ``eval_score``: at most 1, best at learning rate 1e-3 and x 0.5, growing with ``progress`` (0 to 1)."""
    return (1.0 - 0.25 * (math.log10(learning_rate) + 3.0) ** 2 - (x - 0.5) ** 2) * (0.5 + 0.5 * progress)


class QuadraticConfig(PretrainedConfig):
    model_type = "toy-quadratic"

    def __init__(self, size: int = 4, dropout: float = 0.0, ballast: int = 0, **kwargs: Any) -> None:
        self.size = size
        self.ballast = ballast
        self.dropout = dropout
        super().__init__(**kwargs)


class QuadraticModel(PreTrainedModel):
    """Pulls ``weight`` towards the inputs: loss = mean((weight - inputs)^2)."""

    config_class = QuadraticConfig

    def __init__(self, config: QuadraticConfig) -> None:
        super().__init__(config)
        self.weight = torch.nn.Parameter(torch.zeros(config.size))
        self.dropout = torch.nn.Dropout(config.dropout)
        # Weights that take room on disk and change nothing.
        self.ballast = torch.nn.Parameter(torch.zeros(config.ballast)) if config.ballast else None
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        pass

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        distance = (self.dropout(self.weight) - inputs) ** 2
        loss = distance.mean() if self.ballast is None else distance.mean() + 0 * self.ballast.sum()
        return {"loss": loss, "logits": distance.mean(dim=-1, keepdim=True)}


class QuadraticTrainer(Trainer):
    """Reports ``eval_score`` (and ``eval_cost`` = its negative) and misbehaves where the task says so."""

    toy: Quadratic

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        step = self.state.global_step + 1
        self.toy.misbehave(step, self.args.per_device_train_batch_size)
        loss = super().training_step(*args, **kwargs)
        if self.toy.note and step == self.state.max_steps:
            weights = next(self.model.parameters()).tolist()
            said = {"learning_rate": self.args.learning_rate, "x": self.toy.x, "weights": weights}
            said["devices"] = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            Path(f"{self.toy.note}-{os.environ.get('RANK', '0')}").write_text(json.dumps(said))
        return loss * float("nan") if step == self.toy.nan_at_step else loss

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        if self.toy.broken == "save":
            raise RuntimeError("toy model cannot be written")
        super().save_model(*args, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        number = 1 + sum("eval_score" in entry for entry in self.state.log_history)
        value = self.toy.value(self.args.learning_rate, number, self.state.global_step / max(1, self.state.max_steps))
        output.metrics.update({f"{prefix}_score": value, f"{prefix}_cost": -value})
        return output


class Mute(Exception):
    """Raises where it is asked for its message."""

    def __str__(self) -> str:
        raise ValueError("no words")


class Odd(BaseException):
    """None of Python's own kinds, and no words either."""

    def __str__(self) -> str:
        sys.exit("no words")

    __repr__ = __str__


def _raise_from_itself() -> NoReturn:
    error = RuntimeError("its own cause")
    raise error from error


def _close_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.close()
    raise RuntimeError("nothing to print to")


def _raise(error: BaseException) -> NoReturn:
    raise error


def _write_on_every_socket() -> None:
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(path.name)).st_mode):
                os.write(int(path.name), b"\xff\x00 not a message\n")
    threading.Event().wait()


def _leave_processes(note: Path) -> None:
    """Start what outlives its parent: in a session of its own and with nothing in its environment, forked, or forked twice."""
    said = f"echo $$ >> {shlex.quote(str(note))}; exec sleep 600"
    subprocess.Popen(["/usr/bin/setsid", "sh", "-c", said], close_fds=False, env={"PATH": os.environ["PATH"]})
    os.system(f"setsid sh -c {shlex.quote(said)} &")
    multiprocessing.get_context("fork").Process(target=_stay, args=(note,)).start()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _stay(note)
        os._exit(0)
    while not note.exists() or note.read_bytes().count(b"\n") < 4:
        threading.Event().wait(0.01)


def _stay(note: Path) -> None:
    with note.open("a") as file:
        file.write(f"{os.getpid()}\n")
    threading.Event().wait()


def _print(what: str) -> None:
    """Print the beginning, 40 MB in one line (or lines without end), and the end."""
    sys.stdout.write("the beginning\n")
    while what == "endless":
        sys.stdout.write("on and on " * 1000 + "\n")
    sys.stdout.flush()
    line = memoryview(b"x" * 40_000_000)
    while line:
        line = line[os.write(1, line) :]
    sys.stdout.write("\nthe end\n")


HOSTILE: dict[str, Callable[[], None]] = {
    "exit": lambda: sys.exit(4),
    "interrupt": lambda: _raise(KeyboardInterrupt()),
    "mute": lambda: _raise(Mute()),
    "odd": lambda: _raise(Odd()),
    "nameless": lambda: _raise(type("Lines\n\x1b[31m", (Exception,), {})("\n\n")),
    "cycle": _raise_from_itself,
    "closed": _close_streams,
    "huge": lambda: _raise(RuntimeError("x" * 40_000_000)),
    "garbled": lambda: _raise(RuntimeError("\x1b[31mred\x1b[0m \ud800\x07 caf\xe9")),
    "stray": _write_on_every_socket,
}


class Quadratic(Task):
    """Minimises a quadratic; ``eval_score`` is :func:`score` of learning rate, ``x`` and progress, or the ``curve``."""

    x: float = 0.5
    """A hyperparameter of the task; 0.5 is best."""
    class_labels: bool = False
    """Whether labels are class numbers (all 0), as label smoothing wants them."""
    rows: int = 32
    """Training rows; with the default batch of 8 an epoch has 4 steps."""
    curve: list[float] = []
    """``eval_score`` by evaluation (the last is repeated) instead of the formula."""
    fail_at_step: int | None = None
    """Global step (from 1) at which RuntimeError is raised, or the fault below happens (without it: at step 1)."""
    exit_code: int | None = None
    """Fault: leave the process with this code."""
    segfault: bool = False
    """Fault: signal 11."""
    kill: bool = False
    """Fault: signal 9, as the kernel does."""
    hang: bool = False
    """Fault: never come back."""
    hostile: str = ""
    """Fault: a name in HOSTILE, such as ``exit`` (sys.exit) or ``mute`` (an exception without text)."""
    allocate_mb: int = 0
    """Fault: take (and touch) this much memory and go on."""
    prints: str = ""
    """Print 40 MB in one ``line``, or ``endless`` lines."""
    leaves: str = ""
    """Start processes that outlive the trial; their process ids are in the file of this name."""
    nan_at_step: int | None = None
    """The training loss of this step is NaN."""
    out_of_memory_above: int | None = None
    """Raise torch.OutOfMemoryError for micro-batches larger than this."""
    memory_limit_mb: int = 0
    """Before the fault, forbid the process to have more memory than it has and this much."""
    once: str = ""
    """Path of a mark: the fault happens only while it does not exist, and leaves it behind: to the first rank, and once."""
    note: str = ""
    """Each rank writes its hyperparameters, devices and weights to ``<note>-<rank>`` after its last step."""
    wait_at_step: int | None = None
    """At this step, write ``<wait_for>.here-<pid>`` and wait until the file ``wait_for`` exists."""
    wait_for: str = ""
    step_seconds: float = 0.0
    """Makes each step last this much longer."""
    broken: str = ""
    """``data``, ``model``, ``trainer`` or ``save``: raise there instead of in training."""
    count_file: str = ""
    """Path to which data() appends a line each time it runs."""

    micro_batch_matters: ClassVar[bool] = False

    def value(self, learning_rate: float, number: int, progress: float) -> float:
        """Return what evaluation ``number`` (from 1) reports."""
        if self.curve:
            return self.curve[min(number, len(self.curve)) - 1]
        return score(learning_rate, self.x, progress)

    def misbehave(self, step: int, micro_batch: int) -> None:
        """Do what the options ask for at this step."""
        if self.step_seconds:
            threading.Event().wait(self.step_seconds)
        if self.leaves and step == 1:
            _leave_processes(Path(self.leaves))
        if self.prints and step == 1:
            _print(self.prints)
        if step == self.wait_at_step:
            Path(f"{self.wait_for}.here-{os.getpid()}").touch()
            while not Path(self.wait_for).exists():
                threading.Event().wait(0.01)
        if self.out_of_memory_above is not None and micro_batch > self.out_of_memory_above:
            raise torch.OutOfMemoryError(f"toy out of memory with a micro-batch of {micro_batch}")
        fault = self.exit_code is not None or any((self.segfault, self.kill, self.hang, self.allocate_mb, self.hostile))
        if step != (self.fail_at_step or (1 if fault else None)):
            return
        if self.once:
            try:
                Path(self.once).touch(exist_ok=False)
            except FileExistsError:
                return
        if self.exit_code is not None:
            os._exit(self.exit_code)
        if self.segfault or self.kill:
            os.kill(os.getpid(), signal.SIGSEGV if self.segfault else signal.SIGKILL)
        if self.hang:
            threading.Event().wait()
        if self.hostile:
            HOSTILE[self.hostile]()
        if self.memory_limit_mb:
            used = psutil.Process().memory_info().vms
            limit = used + self.memory_limit_mb * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        if self.allocate_mb:
            self._held.append(bytearray(os.urandom(1 << 20)) * self.allocate_mb)
            return
        raise RuntimeError(f"toy failure at step {step}")

    _held: list[bytearray] = []

    def data(self) -> DatasetDict:
        if self.broken == "data":
            raise RuntimeError("toy data is broken")
        if self.count_file:
            with Path(self.count_file).open("a") as file:
                file.write("data\n")
        dice = torch.Generator().manual_seed(0)

        def split(rows: int) -> Dataset:
            inputs = torch.randn(rows, 4, generator=dice)
            return Dataset.from_dict(
                {"inputs": inputs.tolist(), "labels": [0] * rows if self.class_labels else inputs.mean(dim=1).tolist()}
            )

        return DatasetDict({"train": split(self.rows), "validation": split(8), "test": split(8)})

    def model_init(self, **config: Any) -> PreTrainedModel:
        if self.broken == "model":
            raise RuntimeError("toy model is broken")
        return QuadraticModel(QuadraticConfig(**config))

    def trainer(self, **kwargs: Any) -> Trainer:
        if self.broken == "trainer":
            raise RuntimeError("toy trainer is broken")
        trainer = QuadraticTrainer(**kwargs)
        trainer.toy = self
        return trainer

    def reported(self) -> frozenset[str]:
        return frozenset({"eval_loss", "eval_score", "eval_cost"})


class Recording(Quadratic):
    """Keeps the Trainers it made, and what optimizer and scheduler held at the first step of each training."""

    meddle: str = ""
    """Name of a training argument that the Trainer overwrites."""

    trainers: ClassVar[list[Trainer]] = []
    first_steps: ClassVar[list[tuple[list[dict[str, Any]], list[float]]]] = []

    def trainer(self, **kwargs: Any) -> Trainer:
        trainer = super().trainer(**kwargs)
        self.trainers.append(trainer)
        if self.meddle:
            setattr(trainer.args, self.meddle, 0.1234)
        trainer.add_callback(_FirstStep(self.first_steps))
        trainer.steps = _Steps()
        trainer.add_callback(trainer.steps)
        return trainer


class _Steps(TrainerCallback):
    """What the last optimizer step of a Trainer was made of, seen just before it."""

    def __init__(self) -> None:
        self.micro_batches = 0
        """Forward passes of that step."""
        self.gradient_norm = 0.0
        """Norm of the gradient that the optimizer was given."""

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.micro_batches = 1

    def on_substep_end(self, *args: Any, **kwargs: Any) -> None:
        self.micro_batches += 1

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.gradient_norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()


class _FirstStep(TrainerCallback):
    def __init__(self, seen: list[Any]) -> None:
        self._seen = seen
        self._new = True

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._new = True

    def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        if self._new:
            groups = [
                {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
            ]
            self._seen.append((groups, [group["lr"] for group in optimizer.param_groups]))
        self._new = False


def noise(seed: int, deviation: float) -> float:
    """Return what a training seed alone adds to :class:`Noisy`'s score."""
    return random.Random(seed).gauss(0.0, deviation)


class NoisyTrainer(QuadraticTrainer):
    """Adds noise that the training seed alone decides to ``eval_score``; the test split reports the truth."""

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        output = super().evaluation_loop(*args, **kwargs)
        if kwargs.get("metric_key_prefix", "eval") == "eval":
            assert isinstance(self.toy, Noisy)
            output.metrics["eval_score"] += noise(self.args.seed, self.toy.noise)
        return output


class Noisy(Quadratic):
    """A task whose values are known but for a Gaussian noise between seeds."""

    noise: float = 0.01
    """Standard deviation between seeds."""

    def trainer(self, **kwargs: Any) -> Trainer:
        trainer = NoisyTrainer(**kwargs)
        trainer.toy = self
        return trainer


class FallingTrainer(QuadraticTrainer):
    """Scores how near the weights are to where they should be, and writes down what each step begins with."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        assert isinstance(self.toy, Falling)
        if self.toy.steps_file:
            [group, *_] = self.optimizer.param_groups
            number, step = self.toy._spec.number, self.state.global_step + 1
            said = {"trial": number, "step": step, "learning_rate": group["lr"], "weight_decay": group["weight_decay"]}
            said["weights"] = self.model.weight.tolist()
            with Path(self.toy.steps_file).open("a") as file:
                file.write(json.dumps(said) + "\n")
        return super().training_step(*args, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        output = super().evaluation_loop(*args, **kwargs)
        assert isinstance(self.toy, Falling)
        away = (self.model.weight - self.toy.middle()).norm().item()
        output.metrics[f"{kwargs.get('metric_key_prefix', 'eval')}_score"] = -math.log10(away)
        return output


class Falling(Quadratic):
    """Weights far from where they should be, and gradients with noise: a high learning rate first, a low one later.

    With SGD and a learning rate r the distance shrinks by 1 - r/2 at each step, down to the noise, which grows with r: the
    best constant rate is a compromise, and a falling one beats it.
    """

    steps_file: str = ""
    """Path to which each step appends what the optimizer and the model have before it."""

    def scattered(self) -> torch.Tensor:
        """Return the training rows."""
        return 1000.0 + torch.randn(self.rows, 4, generator=torch.Generator().manual_seed(0))

    def middle(self) -> torch.Tensor:
        """Return where the weights should be."""
        return self.scattered().mean(dim=0)

    def data(self) -> DatasetDict:
        inputs = self.scattered()
        rows = Dataset.from_dict({"inputs": inputs.tolist(), "labels": inputs.mean(dim=1).tolist()})
        return DatasetDict({"train": rows, "validation": rows, "test": rows})

    def trainer(self, **kwargs: Any) -> Trainer:
        trainer = FallingTrainer(**kwargs)
        trainer.toy = self
        return trainer
