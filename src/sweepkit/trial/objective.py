"""Trains one configuration: a fresh task, model and Trainer from a TrialSpec, proved and reported as events.

It is the same in a forked child, a Ray actor's child and a debugger. A trial's checkpoint is loaded and tested here too.
"""

from __future__ import annotations

import os
import random
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from enum import Enum
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from accelerate import DistributedType
from safetensors import safe_open
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments, set_seed

from sweepkit.study.damage import refuse_damaged
from sweepkit.study.errors import FOREIGN, FULL_DISK, InputError, TrialFailed, TrialInterrupted
from sweepkit.study.files import describe, first_line, printable, text_of
from sweepkit.study.gpus import gpus_here
from sweepkit.study.paths import LAST_NEW
from sweepkit.study.secrets import hide
from sweepkit.study.study import StudyData, Values
from sweepkit.tasks import adapters
from sweepkit.tasks.arguments import SHARDS
from sweepkit.tasks.arguments import SWEEPKIT_DEFAULTS as DEFAULTS
from sweepkit.tasks.kinds import KINDS, kind_class
from sweepkit.tasks.load import arguments_class, task_of
from sweepkit.tasks.prepared import prepare
from sweepkit.tasks.task import Task
from sweepkit.trial import proof
from sweepkit.trial.callback import Diverged, Line, TrialCallback
from sweepkit.trial.console import print_traceback
from sweepkit.trial.costs import forget_peak, peak_memory_mb
from sweepkit.trial.events import Finished, Started
from sweepkit.trial.private import after_evaluations, load_weights, wrap_loading
from sweepkit.trial.reading import read
from sweepkit.trial.reporting import reporting
from sweepkit.trial.trial import Ending, Reason, Trial, TrialSpec

QUIET = frozenset({"disable_tqdm", "report_to", "save_strategy"})
"""Defaults that do not affect what is trained."""


def training_arguments(task: Task, spec: TrialSpec, values: Values) -> TrainingArguments:
    """Return the trial's TrainingArguments, with the micro-batch divided as the spec says; one process shards nothing."""
    own = {"output_dir": str(Path(spec.directory) / LAST_NEW), "report_to": "none"}
    arguments = {**DEFAULTS, **values.training, **own}
    if not arguments.get("use_cpu"):
        _find_gpus()
    if spec.ranks == 1:
        arguments = {name: value for name, value in arguments.items() if name not in SHARDS}
    elif not torch.accelerator.is_available():
        arguments.setdefault("use_cpu", True)  # without it, transformers takes each rank for a process by itself
    arguments.setdefault("dataloader_pin_memory", torch.cuda.is_available())
    if spec.seed is not None:
        arguments["seed"] = spec.seed
    arguments |= spec.batch(arguments)
    training: TrainingArguments = arguments_class(task.arguments_type)(**arguments)
    if training.fsdp and training.use_cpu and training.distributed_state is not None:
        # accelerate looks for FSDP on accelerators only, by this word; sharding itself is torch's, which also knows gloo.
        training.distributed_state.distributed_type = DistributedType.MULTI_GPU
    return training


def _find_gpus() -> None:
    """Refuse to train on the CPU, or on fewer GPUs, what was given GPUs that torch does not find."""
    given = gpus_here() if "CUDA_VISIBLE_DEVICES" in os.environ else ()
    if len(given) > (found := torch.cuda.device_count()):
        missing = f"CUDA_VISIBLE_DEVICES is {','.join(given)} here, and torch {torch.__version__} finds {found} GPU(s)"
        raise InputError(f"{missing}; name GPUs that are there, or set backend.gpus_per_trial: 0 to train on CPUs")


def build_model(task: Task, values: Values) -> Any:
    """Return the task's fresh model, with an adapter where the trial has ``peft.*`` values.

    Raises InputError for a key inside a mapping of which a user's ``model_init`` would have to know the other keys.
    """
    inside = [name for name in values.model if "." in name]
    if inside and all(type(task).model_init is not kind_class(kind).model_init for kind in KINDS):
        field = inside[0].partition(".")[0]
        raise InputError(
            f"model.{inside[0]} needs model.{field} in training with all its keys, for model_init takes it whole"
        )
    model = task.model_init(**values.model)
    if values.peft:
        return task.with_adapter(model, adapters.configuration(values.peft, task.peft_task_type))
    return model


def build_trainer(
    study: StudyData, spec: TrialSpec, task: Task, values: Values, callback: TrialCallback | None
) -> Trainer:
    """Return a fresh Trainer with every hyperparameter applied. Raises TrialFailed where the task returns another class."""
    if task._splits is None:
        prepare(task, study.place.data)
    task._spec = spec
    trainer = fresh_trainer(task, training_arguments(task, spec, values), values, [callback] if callback else [])
    if not isinstance(trainer, Trainer):
        raise TrialFailed(
            f"{type(task).__name__}.trainer must return a transformers.Trainer, got {type(trainer).__name__}"
        )
    proof.observe(trainer)
    _load_by_the_models_names(trainer)
    if callback:
        if callback in trainer.callback_handler.callbacks:
            trainer.remove_callback(callback)
        trainer.add_callback(callback)  # after the task's own, which may change the optimizer or the control
        callback.trainer = trainer
        after_evaluations(trainer, callback.read)
    return trainer


def fresh_trainer(
    task: Task, arguments: TrainingArguments, values: Values, callbacks: Sequence[TrainerCallback] = ()
) -> Trainer:
    """Return the task's Trainer with a fresh model, and an adapter where there are ``peft.*`` values.

    Training draws the random numbers that it would with the same class by itself. Seeds are set right before the model is
    made. Where the class takes ``model_init``, that is the last time, and what its constructor sets again for a model that
    exists is undone; other classes, TRL's among them, go on from what their constructor sets.
    """
    overridden = type(task).compute_metrics is not Task.compute_metrics
    parts = {
        "args": arguments,
        "train_dataset": task.splits["train"],
        "eval_dataset": task.splits["validation"],
        "processing_class": task.processing_class(),
        "data_collator": task.data_collator(),
        "compute_metrics": task.compute_metrics if task.metrics or overridden else None,
        "callbacks": list(callbacks),
    }
    set_seed(arguments.seed)
    model = build_model(task, values)
    task._config = getattr(model, "config", None)
    python, numpy, on_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    trainer = task.trainer(model=model, **parts)
    if _takes_model_init(type(trainer)):
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(on_cpu)
        if on_gpu is not None:
            torch.cuda.set_rng_state_all(on_gpu)
    return trainer


def _takes_model_init(kind: type[Any]) -> bool:
    """Whether every constructor of a Trainer's class takes ``model_init``, or passes on whatever it is given."""
    made = [vars(cls)["__init__"] for cls in kind.__mro__[:-1] if "__init__" in vars(cls)]
    given = [signature(each).parameters.values() for each in made]
    return all(any(each.name == "model_init" or each.kind is each.VAR_KEYWORD for each in names) for names in given)


def _load_by_the_models_names(trainer: Trainer) -> None:
    """Translate the names of a checkpoint's weights where ``save_pretrained`` wrote others than the model's own.

    Some models, ViT among them, are saved under the names of earlier versions. ``from_pretrained`` translates these; the
    Trainer warns and continues with random weights.
    """

    def wrap(load: Callable[..., None]) -> Callable[..., None]:
        def translating(resume_from_checkpoint: str, model: Any = None) -> None:
            own = trainer.model if model is None else model
            saved: set[str] = set()
            for file in Path(resume_from_checkpoint).glob("model*.safetensors"):
                with safe_open(file, "pt") as weights:
                    saved.update(weights.keys())
            sharded = trainer.is_fsdp_enabled  # its shards are saved beside, under the model's own names
            if isinstance(own, PreTrainedModel) and not sharded and not saved <= own.state_dict().keys():
                read = type(own).from_pretrained(resume_from_checkpoint, config=own.config, dtype=own.dtype)
                own.load_state_dict(read.state_dict())
            elif model is None:
                load(resume_from_checkpoint)  # some Trainers take nothing else
            else:
                load(resume_from_checkpoint, model)

        return translating

    wrap_loading(trainer, wrap)


def run_trial(
    study: StudyData,
    spec: TrialSpec,
    line: Line,
    *,
    kind: type[Task] | None = None,
    before: Callable[[Trainer], None] | None = None,
) -> Finished:
    """Train one configuration and return how it ended; an exception of the task is an ending, too.

    ``kind`` replaces the class that the study names; ``before`` is called with the Trainer right before it trains.
    """
    began = time.monotonic()
    forget_peak()
    callback: TrialCallback | None = None
    try:
        values = study.by_consumer(spec.hyperparameters)
        task = task_of(study, values.task, kind=kind)

        def begin(started: TrialCallback) -> None:
            proof.restore(started.trainer)
            proved, unproved = proof.prove(started.trainer, task, values, spec)
            if spec.rank == 0:
                line.send(_started(spec, values, started.trainer, proved, unproved))

        callback = TrialCallback(study, spec, line, begin)
        trainer = build_trainer(study, spec, task, values, callback)
        asked = None if before else values.training.get("report_to")
        if before is not None:
            before(trainer)
        with reporting(trainer, study, spec, asked):
            trainer.train(resume_from_checkpoint=spec.resume_from)
        if not callback.evaluations:
            callback.read(trainer.evaluate(), final=True)
        ending, reason, cause = Ending.complete, None, ""
    except FOREIGN as error:
        ending, reason, cause = _end_of(error)
    return Finished(
        trial=spec.number,
        at=time.time(),
        ending=ending,
        reason=reason,
        cause=cause,
        step=callback.step if callback else 0,
        seconds=time.monotonic() - began,
        peak_memory_mb=peak_memory_mb(),
        values=callback.values if callback else (),
    )


def _end_of(error: BaseException) -> tuple[Ending, Reason | None, str]:
    """Return ending, reason and cause for an exception; print the traceback of a crash."""
    if isinstance(error, TrialInterrupted):
        return (Ending.pruned if error.answer == "prune" else Ending.stopped), None, ""
    if isinstance(error, Diverged):
        return Ending.diverged, Reason.not_finite, str(error)
    if is_out_of_memory(error):
        return Ending.infeasible, Reason.out_of_memory, f"out of memory: {first_line(error)}"
    if is_full_disk(error):
        return Ending.failed, Reason.disk_full, f"no space left on the disk: {first_line(error)}"
    print_traceback(error)
    return Ending.failed, Reason.crash, first_line(describe(error))


def evaluate_on_test(study: StudyData, spec: TrialSpec, model: str) -> dict[str, Any]:
    """Return ``metrics`` (``test_…``) and ``rows`` of the model in a trial's ``best/`` folder. Raises InputError."""
    values = study.by_consumer(spec.hyperparameters)
    task = task_of(study, values.task)
    trainer = build_trainer(study, spec, task, values, None)
    data = task.splits
    if "test" not in data:
        raise InputError(f"the data has no test split, only {', '.join(data)}")
    load_best(trainer, Path(model))
    reported = trainer.evaluate(data["test"], metric_key_prefix="test")
    numbers = read(reported, ()).numbers.items()
    # TRL's Trainers begin what they add with eval_, whatever is evaluated.
    return {"metrics": {re.sub("^eval_", "test_", name): value for name, value in numbers}, "rows": len(data["test"])}


def load_best(trainer: Trainer, folder: Path) -> None:
    """Load the weights in a trial's ``best/`` folder. Raises DamagedFile where it is not as it was written."""
    refuse_damaged(folder)
    load_weights(trainer, str(folder))


def load_best_model(study: StudyData, trial: Trial, checkpoint: Path) -> Any:
    """Return the model in a trial's ``best/`` folder, with its adapter, on the device of its Trainer."""
    values = study.by_consumer(trial.params)
    task = task_of(study, values.task)
    with TemporaryDirectory(prefix="sweepkit-") as folder, _quiet():
        spec = TrialSpec(number=trial.number, hyperparameters=trial.params, directory=folder, drawn=trial.drawn)
        trainer = build_trainer(study, spec, task, values, None)
        load_best(trainer, checkpoint)
    assert trainer.model is not None
    return trainer.model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' list of newly initialised weights, which trained ones are about to replace."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the GPU or the machine ran out of memory."""
    text = text_of(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in text or "can't allocate memory" in text or "not enough memory" in text)
    )


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an exception, or one behind it, means that a disk or a quota is full."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # an exception may be its own cause
        seen.add(id(error))
        full = isinstance(error, OSError) and error.errno in FULL_DISK
        # safetensors and torch put it in the message only, and torch without the system's reason.
        words = ("No space left on device", "os error 28", "PytorchStreamWriter failed writing", "unexpected pos ")
        if full or any(word in text_of(error) for word in words):
            return True
        error = error.__cause__ or error.__context__
    return False


def _started(spec: TrialSpec, values: Values, trainer: Trainer, proved: list[str], unproved: list[str]) -> Started:
    # Another TrainingArguments would reset the state of the Trainer's Accelerator, so the defaults are read off the fields.
    defaults = {f.name: f.default_factory() if callable(f.default_factory) else f.default for f in fields(trainer.args)}
    names = {*DEFAULTS, *values.training, "per_device_train_batch_size", "gradient_accumulation_steps", "seed"} - QUIET
    values_now = {name: _plain(getattr(trainer.args, name)) for name in sorted(names)}
    effective = {name: value for name, value in values_now.items() if value != _plain(defaults.get(name))}
    return Started(
        trial=spec.number,
        at=time.time(),
        attempt=spec.attempt,
        pid=os.getpid(),
        host=printable(socket.gethostname()),
        device=",".join(spec.devices) or str(trainer.args.device),
        resumed=trainer.state.global_step,
        effective=hide(effective),
        proved=tuple(proved),
        unproved=tuple(unproved),
    )


def _plain(value: Any) -> Any:
    value = value.value if isinstance(value, Enum) else value
    return value if value is None or isinstance(value, (bool, int, float, str, list, dict)) else str(value)
