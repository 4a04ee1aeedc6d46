"""The second stage of check: before trial 0, builds, trains, evaluates and saves one configuration as a trial does.

Finds what only the user's code or the hub can tell: unknown names of the model's configuration, metrics that are never
reported, the memory a trial needs. Records nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, Trainer
from transformers.trainer_utils import has_length

from sweepkit.study.errors import FOREIGN, nearest
from sweepkit.study.files import describe, first_line
from sweepkit.study.names import parts
from sweepkit.study.paths import BEST
from sweepkit.study.space import visit
from sweepkit.study.study import StudyData
from sweepkit.tasks.load import task_of
from sweepkit.tasks.task import Task
from sweepkit.trial.console import print_traceback
from sweepkit.trial.costs import Costs, peak_memory_mb
from sweepkit.trial.first_steps import Inspected
from sweepkit.trial.objective import build_trainer, is_out_of_memory
from sweepkit.trial.reading import Reading, read
from sweepkit.trial.trial import TrialSpec

ROWS = 32
"""Rows that are evaluated: enough to see which metrics are reported."""
TOKENIZED = 1000
"""Rows of each split whose tokens are counted."""
TOKENS = ("input_ids", "prompt_ids", "chosen_ids", "rejected_ids")
"""How the columns that hold a row's tokens end."""
UNKNOWN, TOO_UNKNOWN = 0.05, 0.5
"""Parts of the tokens that stand for text that the tokenizer does not know: to be said, and to be refused."""
SHORT = {"max_steps": 1, "eval_strategy": "steps", "eval_steps": 2}
"""One step without an evaluation. ``eval_strategy: no`` would be shorter, but early-stopping callbacks refuse it."""
MULTIPLIED = (
    "with {ranks} ranks, transformers multiplies this model's loss by {ranks}, eval_loss too; "
    "average_tokens_across_devices: false in training leaves it as it is"
)


def inspect(study: StudyData, spec: TrialSpec) -> Inspected:
    """Train one step of a configuration and return what it showed; the trial's directory is scratch."""
    short = study.model_copy(update={"training": {**study.training, **SHORT}}).at(study.home)
    try:
        values = short.by_consumer({k: v for k, v in spec.hyperparameters.items() if k not in SHORT})
        task = task_of(study, values.task)
        trainer = build_trainer(short, spec, task, values, None)
        facts = (*task.left_out(), *task.data_notes())
    except FOREIGN as error:
        return _not_built(error)
    assert trainer.model is not None
    size = sum(p.numel() * p.element_size() for p in trainer.model.parameters()) / 1e6
    unread, said = _unknown_tokens(task, trainer)
    found = Inspected(
        problems=(*_unknown_configuration(study, task, trainer), *_endless(study, spec, trainer), *unread),
        facts=(*facts, *said),
        model_mb=size,
        model_folder=str(getattr(getattr(trainer.model, "config", None), "name_or_path", "")),
        micro_batch_matters=task.micro_batch_matters or any(each.name == "task.loss" for each in visit(study.space)),
    )
    own = _leave_out_callbacks(trainer)
    try:
        reading = _first_evaluation(study, trainer)
    except FOREIGN as error:
        if is_out_of_memory(error):
            found = _with_note(found, "a step and an evaluation ran out of memory", error)
        elif own:
            found = _with_note(found, f"a step and an evaluation failed without {', '.join(own)}", error)
        else:
            print_traceback(error)
            cause = f"a step and an evaluation failed: {first_line(describe(error))}"
            found = replace(found, problems=(*found.problems, ("task", cause)))
    else:
        if _multiplies_loss(study, trainer):
            found = replace(found, facts=(*found.facts, MULTIPLIED.format(ranks=study.backend.ranks_per_trial)))
        missing = [("objective.metric", why) for goal in study.objective.goals if (why := reading.missing(goal.metric))]
        found = replace(
            found,
            problems=found.problems if own else (*found.problems, *missing),
            notes=(*found.notes, *(f"{why}, unless {', '.join(own)} adds it" for _, why in missing if own)),
            facts=(*found.facts, *_evaluation_facts(task, reading)),
        )
    try:
        trainer.save_model(str(Path(spec.directory) / BEST))
    except FOREIGN as error:
        found = _with_note(found, "the model cannot be saved", error)
    return replace(found, peak_memory_mb=peak_memory_mb())


def _not_built(error: BaseException) -> Inspected:
    print_traceback(error)
    cause = first_line(describe(error))
    if is_out_of_memory(error):
        return Inspected(notes=(f"the first configuration is too big to be built ({cause}); others may fit",))
    return Inspected(problems=(("task", f"a trial cannot be built: {cause}"),))


def _leave_out_callbacks(trainer: Trainer) -> list[str]:
    """Remove the callbacks of a person's own, which may write somewhere, and return their names."""
    libraries = ("transformers", "trl", "sentence_transformers")
    every = trainer.callback_handler.callbacks
    own = [each for each in every if type(each).__module__.partition(".")[0] not in libraries]
    for each in own:
        trainer.remove_callback(each)
    return [type(each).__name__ for each in own]


def _first_evaluation(study: StudyData, trainer: Trainer) -> Reading:
    """Train a step and evaluate: a few rows of each set, or all of them where a metric cannot do with a few."""
    costs = Costs()
    trainer.train()
    rows: Any = trainer.eval_dataset
    try:
        metrics = trainer.evaluate(
            {name: _few(part) for name, part in rows.items()} if isinstance(rows, dict) else _few(rows)
        )
    except (ValueError, ArithmeticError):
        metrics = trainer.evaluate()
    return read(metrics, [goal.metric for goal in study.objective.goals], costs.now(trainer))


def _multiplies_loss(study: StudyData, trainer: Trainer) -> bool:
    """Whether several ranks would report a multiple of the mean loss.

    Transformers multiplies by their number what it takes for a sum over all ranks' rows divided by the number of these: the
    loss of every model that accepts ``num_items_in_batch``, also of those that ignore it.
    """
    if study.backend.ranks_per_trial == 1 or not trainer.args.average_tokens_across_devices:
        return False
    if not trainer.model_accepts_loss_kwargs or trainer.compute_loss_func or trainer.model is None:
        return False
    inputs = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    try:
        with torch.no_grad():
            losses = [trainer.model(**inputs, num_items_in_batch=torch.tensor(count))["loss"] for count in (1, 1000)]
    except FOREIGN:
        return False  # a Trainer of its own kind makes the model's inputs
    return bool(torch.isclose(*losses))


def _few(rows: Any) -> Any:
    return rows.select(range(min(ROWS, len(rows)))) if hasattr(rows, "select") else rows


def _evaluation_facts(task: Task, reading: Reading) -> Iterator[str]:
    if task.decision_rule:
        yield f"predictions: {task.decision_rule}"
    if reading.others:
        parts = ", ".join(f"{name} is {what}" for name, what in sorted(reading.others.items()))
        yield f"not recorded because not a finite number: {parts}"


def _with_note(found: Inspected, failure: str, error: BaseException) -> Inspected:
    print_traceback(error)
    note = f"{failure} ({first_line(describe(error))}); trials may fail in the same way"
    return replace(found, notes=(*found.notes, note))


def _endless(study: StudyData, spec: TrialSpec, trainer: Trainer) -> Iterator[tuple[str, str]]:
    """Yield a problem for streamed training rows, whose number is unknown, without a length in steps."""
    if not has_length(trainer.train_dataset) and {**study.training, **spec.hyperparameters}.get("max_steps", -1) <= 0:
        yield "training.max_steps", "needed, for data() streams the training rows: the length of a trial in steps"


def _unknown_tokens(task: Task, trainer: Trainer) -> tuple[list[tuple[str, str]], list[str]]:
    """Return what the tokenizer does not know of the rows, as a problem or as a fact; of the split where that is most.

    Nothing where that cannot be told: without a tokenizer that has such a token, with streamed rows, and where a Task of one's
    own tokenises them later.
    """
    tokenizer: Any = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
    special = getattr(tokenizer, "special_tokens_map", {})
    if getattr(tokenizer, "unk_token", None) is None or list(special.values()).count(tokenizer.unk_token) != 1:
        return [], []  # a tokenizer of bytes knows every text; its unknown token is also that of the end
    rows: Any = trainer.eval_dataset
    splits = {"training": trainer.train_dataset, **(rows if isinstance(rows, dict) else {"validation": rows})}
    parts = {split: _unknown_part(task, tokenizer, part) for split, part in splits.items() if hasattr(part, "select")}
    split = max(parts, key=parts.__getitem__, default="")
    part = parts.get(split, 0.0)
    said = (
        f"{part:.0%} of the tokens of the {split} rows are {tokenizer.unk_token}: {type(tokenizer).__name__} has no token for "
        "what they stand for, so such texts look alike to the model; use a model made for them, or write a Task whose "
        "processing_class() can read them"
    )
    return ([("task", said)], []) if part >= TOO_UNKNOWN else ([], [said] if part >= UNKNOWN else [])


def _unknown_part(task: Task, tokenizer: Any, rows: Any) -> float:
    """Return which part of the first rows' tokens stands for what the tokenizer does not know."""
    few = rows.select(range(min(TOKENIZED, len(rows))))
    lists = [ids for name in few.column_names if name.endswith(TOKENS) for ids in few[name]]
    if not lists and type(task).__module__.startswith("sweepkit."):
        texts = [name for name, kind in few.features.items() if getattr(kind, "dtype", "") == "string"]
        lists = [ids for name in texts for ids in tokenizer(list(few[name]))["input_ids"]]
    others = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    ids = [token for row in lists for token in row if token not in others]
    return ids.count(tokenizer.unk_token_id) / max(1, len(ids))


def _unknown_configuration(study: StudyData, task: Task, trainer: Trainer) -> list[tuple[str, str]]:
    """Return a problem for each ``model.*`` name that neither the model's configuration nor ``model_init`` has.

    A model without a configuration of transformers has what ``model_init`` accepts.
    """
    arguments = signature(task.model_init).parameters
    found = getattr(trainer.accelerator.unwrap_model(trainer.model), "config", None)
    config = found if isinstance(found, PreTrainedConfig) else None
    if config is None and any(each.kind is each.VAR_KEYWORD for each in arguments.values()):
        return []
    names = [(each.path, each.name) for each in visit(study.space)]
    names += [(f"training.{name}", name) for name in study.training]
    known = [*arguments, *(config.to_dict() if config else ())]
    return [
        (path, f"the model's configuration has no {name}{nearest(name, known)}")
        for path, (namespace, (name, *_)) in ((path, parts(name)) for path, name in names)
        if namespace == "model" and name not in known and not hasattr(config, name)
    ]
