"""Plans the study of ``sweep tune`` step by step, and writes it: kind and columns, model, recipe, length and budget."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sweepkit.check import Checked
from sweepkit.check.merging import with_overrides
from sweepkit.check.study_file import load_study
from sweepkit.check.yaml import Document
from sweepkit.cli.new import objective_of
from sweepkit.cli.request import Request, below, check_name, command_words, flow, reference, yaml_text
from sweepkit.driver import tuning
from sweepkit.driver.forecast import Forecast
from sweepkit.study import words
from sweepkit.study.errors import InputError, StudyFileError
from sweepkit.study.files import write_whole
from sweepkit.study.parameters import Expression
from sweepkit.study.paths import RUNS
from sweepkit.tasks.kinds import kind_class
from sweepkit.tasks.references import downloaded_model, find_model, looks_local
from sweepkit.tasks.task import Template

FILE = "study.yaml"
MINUTES = 30.0
PROBED_EPOCHS = 3
LARGE = 2e9
"""Bytes of weights above which an adapter is trained."""
_WROTE = "# Written by: "
_BLOCKS = ("task", "training")


@dataclass(kw_only=True)
class Plan(Request):
    """The study of ``sweep tune``, planned step by step."""

    probe: Callable[[Checked], Forecast]
    began: float = field(default_factory=time.monotonic)

    @property
    def minutes(self) -> float:
        """Minutes that all may take."""
        return float(self.options.get("minutes", MINUTES))

    def study_file(self) -> Path:
        """Return the study file: one that this command wrote before, else a new one. Raises InputError."""
        check_name(self.folder)
        if self.minutes <= 0:
            raise InputError(f"--minutes: expected a number above 0, got {self.options['minutes']}")
        source = self.source()
        if (file := self.folder / FILE).exists():
            self._same(file, source)
            self.say(f"resuming {file} as planned; use another --name for a new plan")
            return file
        if self.folder.exists() and (
            not self.folder.is_dir() or {each.name for each in self.folder.iterdir()} - {RUNS}
        ):
            raise InputError(f"{self.folder} exists already and is not overwritten; choose another --name")
        study = self._with_sets(self._study(source))
        study = self._with_sets(self._sized(study))
        self._checked(study)
        text = self._text(study, source)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, text, mode=0o644)
        self.say(f"wrote {file}; sweep run {shlex.quote(str(file))} does the same from here on")
        return file

    # What was typed.

    def _same(self, file: Path, source: Mapping[str, Any]) -> None:
        """Raise InputError unless the file was written for this data, and for the options that were typed."""
        line = file.read_text(encoding="utf-8").partition("\n")[0]
        command = shlex.split(line.removeprefix(_WROTE)) if line.startswith(_WROTE) else []
        if command[:2] != ["sweep", "tune"]:
            raise InputError(
                f"{file} exists already and is not overwritten; run it with sweep run, or choose another --name"
            )
        given = [self._key(source), *self._recorded(self.options)]
        if command[2] != given[0] or any(word not in command[3:] for word in given[1:]):
            raise InputError(
                f"{file} was planned by: {shlex.join(command)}\n"
                f"resume it with sweep run {shlex.quote(str(file))}, or choose another --name"
            )

    def _key(self, source: Mapping[str, Any]) -> str:
        """Return the data as the study's folder sees it, wherever the command is typed."""
        found = source.get("name") or source.get("path") or source.get("train")
        return str(found if isinstance(found, str) else found[0] if found else "")

    def _recorded(self, options: Mapping[str, str]) -> list[str]:
        """Return options as the study file records them, wherever the command is typed."""
        known = {name: value for name, value in options.items() if name != "name"}
        if "model" in known:
            known["model"] = reference(known["model"], self.folder, "--model")
        return command_words(known, self.overrides)

    # Kind, columns, model and recipe.

    def _study(self, source: dict[str, Any]) -> dict[str, Any]:
        """Return the study with a provisional length and budget."""
        sets = self.sets
        found = self.recognise(source)
        if self.to_do:
            raise InputError("\n".join(self.to_do))
        kind, template = found.kind, kind_class(found.kind).template
        assert template is not None  # every built-in kind has one
        metric, direction, options = objective_of(kind, "")
        model = sets.get("task.model") or self.model(kind)
        searching = self._recipe(template, model)
        training = {"num_train_epochs": PROBED_EPOCHS, "eval_strategy": "steps", "eval_steps": 1 / tuning.EVALUATIONS}
        return {
            "name": self.folder.name,
            "question": f"Which hyperparameters give the best {metric} on {self.data}?",
            "task": {"type": kind, "model": model, "data": source, **found.options, **options},
            "training": {**training, **searching.pop("training", {})},
            "objective": {"metric": metric, "direction": direction},
            **searching,
            "baseline": None,
            "budget": {"trials": tuning.ENOUGH},
            "confirm": {"top": tuning.TOP, "seeds": tuning.SEEDS},
        }

    def _recipe(self, template: Template, model: Any) -> dict[str, Any]:
        """Return the recipe, and what of it differs for the kind."""
        large = isinstance(model, str) and self._weights(model) > LARGE
        if (template.adapter or large) and find_spec("peft") is not None:
            why = f"weights of more than {words.size(LARGE)}" if large else "language models are tuned with adapters"
            self.tell("recipe", f"lora: {why}")
            return {"sweep": "lora", "training": {"peft.target_modules": "all-linear"}}
        hint = "; pip install 'sweepkit[peft]' would tune adapters" if template.adapter or large else ""
        self.tell("recipe", f"finetune-adamw: all weights are trained{hint}")
        low, high = template.learning_rate
        space: dict[str, Any] = {"learning_rate": {"low": float(low), "high": float(high), "log": True}}
        space["weight_decay"] = {"low": 0.0, "high": 0.1, "role": "nuisance"}  # from 0 on, the Trainer's default
        return {"sweep": "finetune-adamw", "space": space}

    def _weights(self, model: str) -> int:
        """Return the bytes of a model's weights; 0 where they are not here."""
        folder = find_model(model, self.folder) or (None if looks_local(model) else downloaded_model(model))
        files = [] if folder is None else [*folder.glob("*.safetensors")] or [*folder.glob("*.bin")]
        return sum(file.stat().st_size for file in files)

    # Length and budget.

    def _sized(self, study: dict[str, Any]) -> dict[str, Any]:
        """Return the study with the length of its trials and its budget, after measuring some."""
        checked = self._checked(study)
        drawn = [name for name, each in checked.study.space.items() if not isinstance(each, Expression)]
        study = self._with_sets({**study, "baseline": {n: checked.known[n] for n in drawn if n in checked.known}})
        arguments = kind_class(study["task"]["type"]).arguments_type.partition(":")[2]
        self.tell("baseline", f"what {arguments} and the model default to")
        checked = self._checked(study)
        forecast = self.probe(checked)
        for objection in forecast.objections(checked.study):
            self.say(f"warning: {objection}")
        rows = json.loads(checked.study.place.data_json.read_text(encoding="utf-8"))["rows"]
        asked = below("training.", self.sets)
        fixed = {"num_train_epochs", "max_steps"} & asked.keys()
        epochs = float(asked.get("num_train_epochs", PROBED_EPOCHS))
        room = tuning.Room(
            seconds=60 * self.minutes - (time.monotonic() - self.began),
            start_seconds=forecast.host.start_seconds,
            slots=forecast.host.slots,
            measured=forecast.measured,
            epochs=epochs,
            eval_rows=rows["validation"],
        )
        try:
            plan = tuning.fit(room, epochs if fixed else None)
        except tuning.TooLittle as error:
            enough = math.ceil(self.minutes + (error.needed - room.seconds) / 60)
            raise InputError(
                f"--minutes {self.minutes:g}: {error}; give it --minutes {enough}, a smaller --model, or fewer rows "
                "(--set task.train_samples=…)"
            ) from None
        self._tell_plan(plan, room, in_steps="max_steps" in fixed)
        task, training = dict(study["task"]), dict(study["training"])
        if plan.eval_rows is not None:
            task["eval_samples"] = plan.eval_rows
        if not fixed:
            training["num_train_epochs"] = plan.epochs if plan.epochs % 1 else int(plan.epochs)
        hours, grace = round(plan.seconds / 3600, 4), round(plan.trial_seconds / 60, 2)
        budget = {"trials": plan.trials, "hours": hours, "grace_minutes": grace}
        return {**study, "task": task, "training": training, "budget": budget}

    def _tell_plan(self, plan: tuning.Plan, room: tuning.Room, *, in_steps: bool) -> None:
        length = "" if in_steps else f"{tuning.in_epochs(plan.epochs)}, "
        steps = round(sum(one.steps for one in room.measured) / len(room.measured) * plan.epochs / room.epochs)
        self.tell(
            "length",
            f"{length}about {words.plural(steps, 'step')} and {words.span(plan.trial_seconds)} if trained to the end",
        )
        self.tell(
            "budget",
            f"up to {words.plural(plan.trials, 'trial')} in {words.span(plan.search_seconds)}, {room.slots} at a time; "
            f"{words.span(plan.confirm_seconds)} to train the best {tuning.TOP} and the baseline over {tuning.SEEDS} new seeds",
        )
        if plan.eval_rows is not None:
            rows = f"{plan.eval_rows} of {room.eval_rows} validation rows"
            self.tell("evaluation", f"{rows}, as all would take too long")

    def _checked(self, study: dict[str, Any]) -> Checked:
        """Return the checked study. Raises InputError for what ``--set`` broke."""
        new = not self.folder.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f".{FILE}"
        try:
            file.write_text(self._text(study, study["task"]["data"]), encoding="utf-8")
            return load_study(file)
        except StudyFileError as error:
            raise InputError("\n".join(f"{problem.path}: {problem.message}" for problem in error.problems)) from None
        finally:
            file.unlink(missing_ok=True)
            if new:
                self.folder.rmdir()

    def _with_sets(self, study: dict[str, Any]) -> dict[str, Any]:
        document = with_overrides(Document(study), self.overrides)
        if document.problems:
            raise StudyFileError(document.problems)
        found: dict[str, Any] = document.data
        return found

    # Words.

    def _text(self, study: Mapping[str, Any], source: Mapping[str, Any]) -> str:
        """Return the study file, with what was decided and why."""
        given = self._recorded({"minutes": f"{self.minutes:g}", **self.options})
        lines = [f"{_WROTE}{shlex.join(['sweep', 'tune', self._key(source), *given])}"]
        lines += [f"# {what}: {text}" for what, text in self.why.items()]
        for key, value in study.items():
            if key in _BLOCKS:
                lines += [f"{key}:", *(f"  {yaml_text(name)}: {flow(each)}" for name, each in value.items())]
            else:
                lines.append(f"{key}: {flow(value)}")
        return "\n".join(lines) + "\n"
