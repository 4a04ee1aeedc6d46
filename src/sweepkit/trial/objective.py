"""One trial: a fresh task, model, TrainingArguments and Trainer from a TrialSpec, trained, proved and reported as events.

The same in a forked child, in a Ray actor's child and in a debugger. A trial's checkpoint is loaded and evaluated here, too.
"""

from __future__ import annotations

import importlib
import os
import resource
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel, Trainer, TrainingArguments, set_seed

from sweepkit.study.errors import FULL_DISK, InputError, SweepError, TrialFailed, TrialInterrupted
from sweepkit.study.files import first_line
from sweepkit.study.paths import LAST_NEW
from sweepkit.study.study import StudyData, Values
from sweepkit.tasks.arguments import SWEEPKIT_DEFAULTS as DEFAULTS
from sweepkit.tasks.load import load_task
from sweepkit.tasks.prepared import prepare
from sweepkit.tasks.task import Task
from sweepkit.trial import proof
from sweepkit.trial.callback import Diverged, Line, TrialCallback
from sweepkit.trial.events import Finished, Started
from sweepkit.trial.private import load_weights, wrap_loading
from sweepkit.trial.trial import Ending, Reason, TrialSpec

QUIET = frozenset({"disable_tqdm", "report_to", "save_strategy"})
"""Those of them that say nothing about a trial."""


def training_arguments(task: Task, spec: TrialSpec, values: Values) -> TrainingArguments:
    """Return the trial's TrainingArguments; after running out of memory the same effective batch in smaller parts."""
    arguments = {**DEFAULTS, **values.training, "output_dir": str(Path(spec.directory) / LAST_NEW)}
    arguments.setdefault("dataloader_pin_memory", torch.cuda.is_available())
    if spec.seed is not None:
        arguments["seed"] = spec.seed
    arguments |= spec.batch(arguments)
    module, _, name = task.arguments_type.partition(":")
    made: TrainingArguments = getattr(importlib.import_module(module), name)(**arguments)
    return made


def build_model(task: Task, values: Values) -> Any:
    """Return a fresh model: the task's, with the LoRA adapter where the trial has ``peft.*`` values."""
    model = task.model_init(**values.model)
    if values.peft:
        from peft import LoraConfig, get_peft_model

        return get_peft_model(model, LoraConfig(**{"task_type": task.peft_task_type, **values.peft}))
    return model


def build_trainer(
    study: StudyData, spec: TrialSpec, task: Task, values: Values, callback: TrialCallback | None
) -> Trainer:
    """Return a fresh Trainer, everything applied and proved as far as it can be before training."""
    prepare(task, study.place.data)
    arguments = training_arguments(task, spec, values)
    task._spec = spec
    set_seed(arguments.seed)
    trainer = task.trainer(
        model=build_model(task, values),
        args=arguments,
        train_dataset=task.splits["train"],
        eval_dataset=task.splits["validation"],
        processing_class=task.processing_class(),
        data_collator=task.data_collator(),
        compute_metrics=task.compute_metrics if task.metrics or _overridden(task) else None,
        callbacks=[callback] if callback else [],
    )
    if not isinstance(trainer, Trainer):
        raise TrialFailed(
            f"{type(task).__name__}.trainer must return a transformers.Trainer, got {type(trainer).__name__}"
        )
    _resume_with_own_values(trainer)
    _load_by_the_models_names(trainer)
    if callback:
        callback.trainer = trainer
    return trainer


def _overridden(task: Task) -> bool:
    return type(task).compute_metrics is not Task.compute_metrics


def _resume_with_own_values(trainer: Trainer) -> None:
    """Make a resumed optimizer and scheduler run with this trial's values, not with the checkpoint's.

    Loading a checkpoint restores the param groups' learning rate, decay, betas and so on, which silently undoes a
    change (population-based training, for one). The values of the freshly made optimizer are remembered and put back at the
    beginning of training; where nothing changed, nothing is touched, so that a plain resume stays exact.
    """
    create_scheduler = trainer.create_scheduler

    def remembering(num_training_steps: int, optimizer: Any = None) -> Any:
        scheduler = create_scheduler(num_training_steps, optimizer)
        own = trainer.optimizer or optimizer
        trainer._sweepkit_fresh = (  # type: ignore[attr-defined]  # carried to proof.restore on the Trainer itself
            [{key: value for key, value in group.items() if key not in ("params", "lr")} for group in own.param_groups],
            list(getattr(scheduler, "base_lrs", [])),
        )
        return scheduler

    trainer.create_scheduler = remembering  # type: ignore[method-assign]  # public hook, wrapped for this one Trainer


def _load_by_the_models_names(trainer: Trainer) -> None:
    """Make a checkpoint's weights find their places also where ``save_pretrained`` wrote them under other names.

    Some models (ViT, for one) are saved with the names of earlier versions, which ``from_pretrained`` translates and
    the Trainer does not: it warns and goes on with random weights.
    """

    def wrap(load: Callable[..., None]) -> Callable[..., None]:
        def translating(resume_from_checkpoint: str, model: Any = None) -> None:
            own = trainer.model if model is None else model
            saved: set[str] = set()
            for file in Path(resume_from_checkpoint).glob("model*.safetensors"):
                with safe_open(file, "pt") as weights:
                    saved.update(weights.keys())
            if isinstance(own, PreTrainedModel) and not saved <= own.state_dict().keys():
                read = type(own).from_pretrained(resume_from_checkpoint, config=own.config, dtype=own.dtype)
                own.load_state_dict(read.state_dict())
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
    """Train one configuration and return how it ended; what a task does wrong is an ending, never an exception.

    ``kind`` is the task's class where the study does not name it; ``before`` is called with the Trainer right before it
    trains.
    """
    began = time.monotonic()
    callback: TrialCallback | None = None
    try:
        values = study.by_consumer(spec.hyperparameters)
        task = load_task(study.task, study.home, values.task, kind=kind, trust_remote_code=study.trust_remote_code)

        def begin(started: TrialCallback) -> None:
            proof.restore(started.trainer)
            proved, unproved = proof.prove(started.trainer, task, values, spec)
            if spec.rank == 0:
                line.say(_started(spec, values, started.trainer, proved, unproved))

        callback = TrialCallback(study, spec, line, begin)
        trainer = build_trainer(study, spec, task, values, callback)
        if before is not None:
            before(trainer)
        trainer.train(resume_from_checkpoint=spec.resume_from)
        if not callback.evaluations:
            trainer.evaluate()
        ending, reason, cause = Ending.complete, None, ""
    except (TrialInterrupted, Exception) as error:  # noqa: BLE001  # an edge: whatever a task raises is this trial's end
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
    """Return the ending that an exception means, its reason and its cause; print the traceback of a crash."""
    if isinstance(error, TrialInterrupted):
        return (Ending.pruned if error.answer == "prune" else Ending.stopped), None, ""
    if isinstance(error, Diverged):
        return Ending.diverged, Reason.not_finite, str(error)
    if is_out_of_memory(error):
        return Ending.infeasible, Reason.out_of_memory, f"out of memory: {first_line(error)}"
    if is_full_disk(error):
        return Ending.failed, Reason.disk_full, f"no space left on the disk: {first_line(error)}"
    traceback.print_exception(error)
    name = "" if isinstance(error, SweepError) else f"{type(error).__name__}: "
    return Ending.failed, Reason.crash, f"{name}{first_line(error)}"


def evaluate_on_test(study: StudyData, spec: TrialSpec, model: str) -> dict[str, Any]:
    """Return ``metrics`` (``test_…``) and ``rows`` of the model in a trial's ``best/`` folder. Raises InputError."""
    values = study.by_consumer(spec.hyperparameters)
    task = load_task(study.task, study.home, values.task, trust_remote_code=study.trust_remote_code)
    prepare(task, study.place.data)
    data = task.splits
    if "test" not in data:
        raise InputError(f"the data has no test split, only {', '.join(data)}")
    trainer = build_trainer(study, spec, task, values, None)
    load_weights(trainer, model)
    found = trainer.evaluate(data["test"], metric_key_prefix="test")
    metrics = {key: float(value) for key, value in found.items() if key.startswith("test_")}
    return {"metrics": metrics, "rows": len(data["test"])}


def load_best_model(study: StudyData, params: Mapping[str, Any], checkpoint: Path) -> Any:
    """Return the model in a trial's ``best/`` folder, its adapter included, on the device the Trainer takes."""
    values = study.by_consumer(params)
    task = load_task(study.task, study.home, values.task, trust_remote_code=study.trust_remote_code)
    with TemporaryDirectory(prefix="sweepkit-") as folder, _quiet():
        spec = TrialSpec(number=0, hyperparameters=params, directory=folder)
        trainer = build_trainer(study, spec, task, values, None)
        load_weights(trainer, str(checkpoint))
    assert trainer.model is not None
    return trainer.model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' list of newly initialised weights: the model is about to get its trained ones."""
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
    """Whether an exception means that memory, of the GPU or the machine, was not enough."""
    text = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in text or "can't allocate memory" in text or "not enough memory" in text)
    )


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an exception, or one that it came from, means that a disk or a quota is full."""
    while error is not None:
        full = isinstance(error, OSError) and error.errno in FULL_DISK
        # safetensors and torch tell it in words alone; the latter does not even give the system's reason.
        words = ("No space left on device", "os error 28", "PytorchStreamWriter failed writing", "unexpected pos ")
        if full or any(word in str(error) for word in words):
            return True
        error = error.__cause__ or error.__context__
    return False


def peak_memory_mb() -> float:
    """Return the most memory this process used so far, in megabytes: of the GPU where one is used, else resident."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated() / 1e6)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6 * (1 if sys.platform == "darwin" else 1024)


def _started(spec: TrialSpec, values: Values, trainer: Trainer, proved: list[str], unproved: list[str]) -> Started:
    # Making another TrainingArguments would reset the Accelerator's state under the Trainer: read the fields instead.
    defaults = {f.name: f.default_factory() if callable(f.default_factory) else f.default for f in fields(trainer.args)}
    names = {*DEFAULTS, *values.training, "per_device_train_batch_size", "gradient_accumulation_steps", "seed"} - QUIET
    given = {name: _plain(getattr(trainer.args, name)) for name in names}
    effective = {name: value for name, value in sorted(given.items()) if value != _plain(defaults.get(name))}
    return Started(
        trial=spec.number,
        at=time.time(),
        attempt=spec.attempt,
        pid=os.getpid(),
        host=socket.gethostname(),
        device=",".join(spec.devices) or str(trainer.args.device),
        resumed=trainer.state.global_step,
        effective=effective,
        proved=tuple(proved),
        unproved=tuple(unproved),
    )


def _plain(value: Any) -> Any:
    value = value.value if isinstance(value, Enum) else value
    return value if value is None or isinstance(value, (bool, int, float, str, list, dict)) else str(value)
