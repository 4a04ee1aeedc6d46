"""The second stage of check, in a warm child right before trial 0: builds, trains a step, evaluates and saves as a trial does.

Finds what only the user's code or the hub can tell: names the model does not know, metrics that never appear, memory and
disk that a trial needs. Knows nothing of the search; nothing is recorded.
"""

from __future__ import annotations

import traceback
from inspect import signature
from pathlib import Path
from typing import Any

from sweepkit.study.errors import InputError, nearest
from sweepkit.study.files import first_line
from sweepkit.study.paths import BEST
from sweepkit.study.space import visit
from sweepkit.study.study import StudyData
from sweepkit.tasks.load import load_task
from sweepkit.tasks.task import Task
from sweepkit.trial.objective import build_trainer, is_out_of_memory, peak_memory_mb
from sweepkit.trial.trial import TrialSpec

ROWS = 32
"""Rows that are evaluated: enough for a metric to say its names."""
SHORT = {"max_steps": 1, "eval_strategy": "steps", "eval_steps": 2}
"""One step, and no evaluation of its own; not eval_strategy no, which a callback that stops early refuses."""


def inspect(study: StudyData, spec: TrialSpec) -> dict[str, Any]:
    """Return ``problems`` ((path, message) pairs), ``notes``, ``peak_memory_mb`` and ``checkpoint_mb`` of one trial.

    Also ``model_mb``, and ``micro_batch_matters`` as the task has it. The trial's directory is scratch.
    """
    numbers = dict.fromkeys(("peak_memory_mb", "checkpoint_mb", "model_mb"), 0.0)
    answer: dict[str, Any] = {"problems": [], "notes": [], "micro_batch_matters": True, **numbers}
    short = study.model_copy(update={"training": {**study.training, **SHORT}}).at(study.home)
    try:
        values = short.by_consumer({k: v for k, v in spec.hyperparameters.items() if k not in SHORT})
        task = load_task(study.task, study.home, values.task, trust_remote_code=study.trust_remote_code)
        trainer = build_trainer(short, spec, task, values, None)
    except Exception as error:  # noqa: BLE001  # an edge: the user's code
        traceback.print_exc()
        name = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        if is_out_of_memory(error):
            answer["notes"].append(
                f"the first configuration is too big to be built ({name}{first_line(error)}); others may fit"
            )
        else:
            answer["problems"].append(("task", f"a trial cannot be built: {name}{first_line(error)}"))
        return answer
    answer["micro_batch_matters"] = task.micro_batch_matters
    answer["problems"] += _unknown_configuration(study, task, trainer)
    assert trainer.model is not None
    megabytes = sum(p.numel() * p.element_size() for p in trainer.model.parameters()) / 1e6
    answer["model_mb"] = megabytes
    answer["checkpoint_mb"] = 3 * megabytes if study.checkpoints.every == "evaluation" else megabytes
    try:
        trainer.train()
        rows: Any = trainer.eval_dataset
        metrics = trainer.evaluate(rows.select(range(min(ROWS, len(rows)))) if hasattr(rows, "select") else rows)
        found = sorted(name for name in metrics if name.startswith("eval_"))
        for metric in [goal.metric for goal in study.objective.goals if goal.metric not in metrics]:
            near = nearest(metric, found)
            answer["problems"].append(
                ("objective.metric", f"the task reports no {metric}{near} It reports {', '.join(found)}")
            )
    except Exception as error:  # noqa: BLE001  # an edge: the user's code
        traceback.print_exc()
        answer["notes"].append(
            f"a step and an evaluation did not work ({type(error).__name__}: {first_line(error)}); trials may fail alike"
        )
    try:
        trainer.save_model(str(Path(spec.directory) / BEST))
    except Exception as error:  # noqa: BLE001  # an edge: the user's code
        traceback.print_exc()
        answer["notes"].append(
            f"the model cannot be saved ({type(error).__name__}: {first_line(error)}); trials may fail alike"
        )
    answer["peak_memory_mb"] = peak_memory_mb()
    return answer


def _unknown_configuration(study: StudyData, task: Task, trainer: Any) -> list[tuple[str, str]]:
    """What neither the model's configuration nor an argument of ``model_init`` has a place for."""
    taken = signature(task.model_init).parameters
    config = getattr(trainer.accelerator.unwrap_model(trainer.model), "config", None)
    names = [(each.path, each.name) for each in visit(study.space)] + [
        (f"training.{name}", name) for name in study.training
    ]
    known = list(config.to_dict()) if config is not None else []
    wanted = [(path, name.removeprefix("model.")) for path, name in names if name.startswith("model.")]
    return [
        (path, f"the model's configuration has no {name}{nearest(name, known)}")
        for path, name in wanted
        if name not in taken and not hasattr(config, name)
    ]
