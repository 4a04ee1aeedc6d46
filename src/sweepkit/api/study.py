"""A study in Python: the data of a study file, with verbs. What is heavy is imported by the verb that needs it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, PrivateAttr

from sweepkit.study import words
from sweepkit.study.errors import InputError, Problem, StudyFileError, StudyNotFound
from sweepkit.study.files import write_whole
from sweepkit.study.parameters import Choice, Expression, Float, Int
from sweepkit.study.paths import Place
from sweepkit.study.space import visit
from sweepkit.study.study import StudyData
from sweepkit.tasks import by_value
from sweepkit.tasks.kinds import KINDS
from sweepkit.tasks.load import task_of
from sweepkit.tasks.task import Task

if TYPE_CHECKING:
    import pandas
    from plotly.graph_objects import Figure

    from sweepkit.report.answer import Answer
    from sweepkit.report.health import Finding
    from sweepkit.report.verdict import Verdict
    from sweepkit.report.watch import Outcome
    from sweepkit.trial.trial import Trial


class Study(StudyData):
    """A study: which task, what may vary, which metric counts, how much may be spent. The keys are those of a study file.

    ``task`` may also be a Task or a Task class. One defined in a cell or a script is pickled by value for the trials; where
    something in it cannot be pickled, InputError names it. Relative paths start from the current folder.
    """

    _pickled: type[Task] | None = PrivateAttr(default=None)
    """A Task class that no file holds; written to the study's folder before a run."""

    def __init__(self, **keys: Any) -> None:
        task, home, pickled = keys.get("task"), Path.cwd(), None
        if isinstance(task, Task) or (isinstance(task, type) and issubclass(task, Task)):
            kind = task if isinstance(task, type) else type(task)
            reference = _reference(kind, home)
            if reference is None:
                by_value.dumps(kind)  # fails here, in the cell that defines it, rather than in a trial
                pickled = kind
                reference = {"pickle": os.path.relpath(Place.of(str(keys.get("name")), home).task, home)}
            keys["task"] = {**reference, **({} if isinstance(task, type) else _options(task))}
        if keys.get("sweep") is not None or (
            isinstance(backend := keys.get("backend"), Mapping) and "accelerate" in backend
        ):
            from sweepkit.check.study_file import merge_recipe

            keys, idle = merge_recipe(keys, home)
            for problem in idle:
                warnings.warn(str(problem), stacklevel=2)
        super().__init__(**keys)
        self._home, self._pickled = home, pickled
        if pickled is not None and (problems := _wrong_options(self, pickled)):
            raise StudyFileError(problems)

    @classmethod
    def from_data(cls, data: StudyData) -> Self:
        """Return the study with verbs."""
        study = cls.model_construct(_fields_set=data.model_fields_set, **dict(data))
        study._home = data.home
        return study

    def __repr__(self) -> str:
        goals = ", ".join(f"{goal.direction} {goal.metric}" for goal in self.objective.goals)
        names = {each.name for each in visit(self.space)}
        budget = words.plural(self.budget.trials, "trial") if self.budget.trials is not None else "no limit of trials"
        return f"<Study {self.name}: {goals}, {words.plural(len(names), 'hyperparameter')}, {budget}>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """Return the study as a notebook shows it: its question, what varies, and how far it is."""
        from html import escape

        from sweepkit.report.rows import endings

        answer = self._answer()
        facts = [endings(answer.rows) or "no trial yet", answer.says() if answer.winners else ""]
        names = ", ".join(dict.fromkeys(each.name for each in visit(self.space)))
        about = repr(self).partition(": ")[2].removesuffix(">")
        lines = [f"<b>{escape(self.name)}</b> {escape(self.question)}", escape(about), f"varies: {escape(names)}"]
        return "<br>".join([*lines, escape(" · ".join(filter(None, facts)))])

    def __dir__(self) -> list[str]:
        """Return what completion offers: the keys and the verbs, nothing of pydantic's."""
        foreign = {name for kind in (BaseModel, object) for name in dir(kind)}
        ours = {name for kind in type(self).__mro__ if issubclass(kind, StudyData) for name in vars(kind)}
        return sorted(name for name in {*ours, *type(self).model_fields} - foreign if not name.startswith("_"))

    # Run

    def run(self, *, fresh: bool = False) -> Outcome:
        """Run the study until its budget is spent, resuming where it stopped, and show its progress.

        ``fresh`` archives earlier runs under this name. The stop button (Ctrl-C) lets running trials checkpoint, then raises
        KeyboardInterrupt; nothing is lost, and the same call resumes. Raises what :func:`sweepkit.run` raises.
        """
        from sweepkit.api.background import run

        self._write_task()
        return run(self, fresh=fresh)

    def run_in_background(self, *, fresh: bool = False) -> None:
        """Run the study in a thread of this process, so that other cells can run meanwhile.

        Where it is running already, its picture is shown again. :meth:`stop` stops it; the stop button does not.
        """
        from sweepkit.api.background import running, start

        if running(self) is None:
            self._write_task()
        start(self, fresh=fresh)

    def stop(self) -> None:
        """Stop the run in the background: trials checkpoint first; a second call ends them at once."""
        from sweepkit.api.background import running
        from sweepkit.study.locks import lock_owner

        if (run := running(self)) is not None:
            run.switch.press()
        elif owner := lock_owner(self.place):
            raise InputError(
                f"{self.name} is run by process {owner[0]} on {owner[1]}; stop it with: sweep stop {self.name}"
            )

    def wait(self) -> Outcome:
        """Wait until the run in the background is over and return its outcome, or raise what ended it.

        The stop button ends the wait, not the run.
        """
        from sweepkit.api.background import last

        run = last(self)
        if run is None:
            raise InputError(f"{self.name} does not run in the background; start it with run_in_background()")
        return run.outcome.result()

    # Look

    @property
    def trials(self) -> pandas.DataFrame:
        """One row per trial so far: number, ending and times, a column per metric, ``params.NAME`` columns."""
        from sweepkit.report.rows import frame, read

        return frame(self, read(self))

    @property
    def best(self) -> Trial | None:
        """The best trial, after a confirmation by its mean over new seeds; None while there is none, and with several goals."""
        answer = self._answer()
        return None if answer.several else answer.chosen

    @property
    def front(self) -> list[Trial]:
        """The Pareto-optimal trials, ordered by the first goal: none is as good in every goal and better in one."""
        return self._answer().front

    @property
    def verdict(self) -> Verdict | None:
        """The confirmation's estimates and comparisons over new seeds; ``sentences()`` puts them into words.

        None before a confirmation, and once a better trial has ended since.
        """
        return self._answer().verdict

    def _answer(self) -> Answer:
        from sweepkit.report.answer import Answer
        from sweepkit.report.rows import read

        return Answer.read(self, read(self))

    def best_model(self) -> Any:
        """Return the best trial's model, ready for prediction. Raises StudyNotFound if this machine does not have it."""
        best = self.best
        if best is None or best.checkpoint is None:
            raise StudyNotFound(f"{self.name} has no checkpoint of a best trial on this machine")
        from sweepkit.trial.objective import load_best_model

        return load_best_model(self, best, best.checkpoint)

    def findings(self) -> list[Finding]:
        """Return what looks wrong in the study, each finding with what to do; the most pressing first."""
        from sweepkit import report

        return report.findings(self)

    def report(self, path: Path | str | None = None) -> Path:
        """Write the report as one HTML page, by default into the study's folder, and return its path."""
        from sweepkit import report

        return report.write(self, Path(path) if path else None)

    def plot_history(self) -> Figure:
        """Plot every trial in the order tried, and the best so far."""
        return self._figure("history")

    def plot_front(self) -> Figure:
        """Plot the Pareto front of a study with several goals."""
        return self._figure("front")

    def plot_curves(self, **options: Any) -> Figure:
        """Plot the learning curves; ``color`` names a hyperparameter, ``of="training"`` plots the training loss."""
        return self._figure("curves", **options)

    def plot_importances(self) -> Figure:
        """Plot how much each hyperparameter mattered."""
        return self._figure("importances")

    def plot_isolation(self) -> Figure:
        """Plot the best result for each value of each hyperparameter, over all values of the others."""
        return self._figure("isolation")

    def plot_slices(self) -> Figure:
        """Plot the metric against each hyperparameter."""
        return self._figure("slices")

    def plot_parallel(self) -> Figure:
        """Plot every trained trial as a line through its hyperparameters."""
        return self._figure("parallel")

    def plot_timeline(self) -> Figure:
        """Plot which trial trained when, and on which slot."""
        return self._figure("timeline")

    def plot_ledger(self) -> Figure:
        """Plot where the hours went, by ending of the trials."""
        return self._figure("ledger")

    def _figure(self, name: str, **options: Any) -> Figure:
        from sweepkit.report.figures import FIGURES

        return FIGURES[name](self, **options)

    # Write

    def to_yaml(self, path: Path | str | None = None) -> str:
        """Return the study as the text of a study file; write it to ``path`` if one is given.

        Relative paths in a file start from its folder, so write it beside the notebook. A Task class of a cell is written
        to the study's folder, and the file refers to it.
        """
        from sweepkit.check.study_file import to_yaml

        text = to_yaml(self)
        if path is not None:
            self._write_task()
            Path(path).write_text(text, encoding="utf-8")
        return text

    def _write_task(self) -> None:
        """Write a Task class of a cell where ``task.pickle`` says; refused while another driver runs the study."""
        if self._pickled is None or self.task.pickle is None:
            return
        from sweepkit.study.locks import StudyLock

        pickled = by_value.dumps(self._pickled)  # as it is now: the globals it uses may have changed
        with StudyLock(self.place):
            write_whole(self.home / self.task.pickle, pickled)  # the archive may hold a hard link to the old file


def load_study(path: Path | str, overrides: Iterable[str] = (), *, check: bool = True) -> Study:
    """Return the study in a file or, by name, a study of this project that ran.

    ``overrides`` are texts ``a.b=value``, as ``--set`` takes them. Raises StudyFileError with every problem of the file;
    ``check=False`` skips the rules that need the installed libraries.
    """
    from sweepkit.check.find import find_study, read_study

    return Study.from_data(find_study(str(path), overrides).study if check else read_study(str(path), overrides))


def _reference(kind: type[Task], home: Path) -> dict[str, Any] | None:
    """Return how a study file refers to a Task class: a built-in kind or a file of the project; None if it cannot."""
    import sys

    full = f"{kind.__module__}:{kind.__qualname__}"
    for name, place in KINDS.items():
        if place == full:
            return {"type": name}
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    if file is None or kind.__module__ == "__main__" or "." in kind.__module__ or "." in kind.__qualname__:
        return None
    if not Path(file).resolve().is_relative_to(Place.of("", home).root):
        return None
    return {"path": f"{os.path.relpath(file, home)}:{kind.__name__}"}


def _options(task: Task) -> dict[str, Any]:
    try:
        return task.model_dump(mode="json", by_alias=True, exclude_unset=True)
    except ValueError as error:
        raise InputError(
            f"task: the options of {type(task).__name__} must be values that YAML can hold: {error}; "
            "keep other objects in a global that its methods use"
        ) from error


def _wrong_options(study: StudyData, kind: type[Task]) -> list[Problem]:
    """Return the problems of the options (``task.NAME``) that the study gives a Task class of a cell.

    Of a range both ends are tried, of a choice every value.
    """
    searched = [
        (each.path, each.name, value)
        for each in visit(study.space)
        if each.name.startswith("task.")
        for value in _extremes(each.parameter)
    ]
    first = {name.removeprefix("task."): value for _, name, value in reversed(searched)}
    problems = []
    for path, name, value in searched or [("task", "", None)]:
        options = {**first, name.removeprefix("task."): value} if name else {}
        try:
            task_of(study, options, kind=kind)
        except InputError as error:
            for line in str(error).splitlines():
                key, _, message = line.partition(": ")
                problems.append(Problem(path if key == name else key, message))
    derived = {each.name for each in visit(study.space) if isinstance(each.parameter, Expression)}
    return [problem for problem in dict.fromkeys(problems) if problem.path not in derived]


def _extremes(parameter: Any) -> list[Any]:
    if isinstance(parameter, (Float, Int)):
        return [parameter.low, parameter.high]
    if isinstance(parameter, Choice):
        return list(parameter.choices)
    return [] if isinstance(parameter, Expression) else [parameter]
