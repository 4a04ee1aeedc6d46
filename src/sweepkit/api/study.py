"""The study as one has it in Python: the same data as in a study file, with verbs. Knows no display."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import PrivateAttr

from sweepkit.study import study as data
from sweepkit.study.errors import InputError, Problem, StudyFileError, StudyNotFound
from sweepkit.study.parameters import Choice, Expression, Float, Int
from sweepkit.study.paths import Place
from sweepkit.study.space import visit
from sweepkit.tasks import KINDS, Task, by_value, load_task

if TYPE_CHECKING:
    import pandas
    from plotly.graph_objects import Figure

    from sweepkit.report.answer import Answer
    from sweepkit.report.health import Finding
    from sweepkit.report.verdict import Verdict
    from sweepkit.report.watch import Outcome
    from sweepkit.trial.trial import Trial


class Study(data.StudyData):
    """A study: which task, what may vary, which metric counts, how much may be spent. Its keys are those of the file.

    ``task`` may also be a Task or its class. One that was made in a cell or a script goes to the trials by value; where
    something of it cannot be sent, InputError names it. Relative paths start from the current folder.
    """

    _kind: type[Task] | None = PrivateAttr(default=None)

    def __init__(self, **keys: Any) -> None:
        task, home, sent = keys.get("task"), Path.cwd(), None
        if isinstance(task, Task) or (isinstance(task, type) and issubclass(task, Task)):
            kind = task if isinstance(task, type) else type(task)
            place = _where(kind, home)
            if place is None:
                by_value.dumps(kind)  # what cannot be sent is refused here, in the cell that made it
                sent, file = kind, Place.of(str(keys.get("name")), home).task
                place = {"pickle": os.path.relpath(file, home)}
            keys["task"] = {**place, **({} if isinstance(task, type) else _options(task))}
        super().__init__(**keys)
        self._home, self._kind = home, sent
        if sent is not None and (problems := _wrong_options(self, sent)):
            raise StudyFileError(problems)

    @classmethod
    def of(cls, study: data.StudyData) -> Self:
        """Return a study that was read from a file, with the verbs."""
        made = cls.model_construct(_fields_set=study.model_fields_set, **dict(study))
        made._home = study.home
        return made

    # Run

    def run(self, *, fresh: bool = False) -> Outcome:
        """Run the study until its budget is spent, going on where it stopped, and show how it goes.

        ``fresh`` archives what was run under this name before. The stop button (Ctrl-C) lets running trials checkpoint,
        then raises KeyboardInterrupt; nothing is lost, and the same call goes on. Raises what :func:`sweepkit.run` does.
        """
        from sweepkit.api.background import run

        self._write_task()
        return run(self, fresh=fresh)

    def run_in_background(self, *, fresh: bool = False) -> None:
        """Run the study in a thread of this process, so that the next cell can be run meanwhile.

        Where it runs already, its view is shown again. The stop button does not touch it; :meth:`stop` does.
        """
        from sweepkit.api.background import running, start

        if running(self) is None:
            self._write_task()
        start(self, fresh=fresh)

    def stop(self) -> None:
        """Ask the run in the background to stop: trials checkpoint first; the second time they end at once."""
        from sweepkit.api.background import running
        from sweepkit.study.locks import lock_owner

        if (found := running(self)) is not None:
            found.switch.press()
        elif owner := lock_owner(self.place):
            raise InputError(f"{self.name} is run by process {owner[0]} on {owner[1]}; sweep stop {self.name} stops it")

    def wait(self) -> Outcome:
        """Wait until the run in the background is over and return how it ended, or raise what ended it.

        The stop button ends the waiting, not the study.
        """
        from sweepkit.api.background import last

        found = last(self)
        if found is None:
            raise InputError(f"{self.name} does not run in the background; run_in_background() begins it")
        return found.wait()

    # Look

    @property
    def trials(self) -> pandas.DataFrame:
        """One line per trial at this moment: its facts, a column per metric, ``params.NAME`` columns."""
        from sweepkit.report.rows import frame, read

        return frame(self, read(self))

    @property
    def best(self) -> Trial | None:
        """The best trial, by its mean over new seeds where it was confirmed; None while there is none or with several goals."""
        answer = self._answer()
        return None if answer.several else answer.chosen

    @property
    def front(self) -> list[Trial]:
        """With several goals, the Pareto-optimal trials: none is as good in every goal and better in one."""
        return self._answer().front

    @property
    def verdict(self) -> Verdict | None:
        """The confirmation's estimates and comparisons over new seeds; ``sentences()`` puts them into words.

        None while nothing was confirmed, and when a better trial came since.
        """
        return self._answer().verdict

    def _answer(self) -> Answer:
        from sweepkit.report.answer import Answer
        from sweepkit.report.rows import read

        return Answer.read(self, read(self))

    def best_model(self) -> Any:
        """Return the best trial's model, ready for prediction. Raises StudyNotFound where there is none on this machine."""
        found = self.best
        if found is None or found.checkpoint is None:
            raise StudyNotFound(f"{self.name} has no checkpoint of a best trial on this machine")
        from sweepkit.trial.held_out import load_model

        return load_model(self, found.params, found.checkpoint)

    def findings(self) -> list[Finding]:
        """Return what is not as it should be, each with what to do; the most pressing first."""
        from sweepkit import report

        return report.findings(self)

    def report(self, path: Path | str | None = None) -> Path:
        """Write what the study teaches as one HTML page, by default into its folder, and return the file."""
        from sweepkit import report

        return report.write(self, Path(path) if path else None)

    def plot_history(self) -> Figure:
        """Return every trial in the order tried, and the best so far."""
        return self._figure("history")

    def plot_front(self) -> Figure:
        """Return the Pareto front of a study with several goals."""
        return self._figure("front")

    def plot_curves(self, **options: Any) -> Figure:
        """Return the learning curves; ``color`` names a hyperparameter, ``of="training"`` shows the loss."""
        return self._figure("curves", **options)

    def plot_importances(self) -> Figure:
        """Return which hyperparameters mattered."""
        return self._figure("importances")

    def plot_isolation(self) -> Figure:
        """Return the best that each value of each hyperparameter can reach over all others."""
        return self._figure("isolation")

    def plot_slices(self) -> Figure:
        """Return the metric against every hyperparameter."""
        return self._figure("slices")

    def plot_parallel(self) -> Figure:
        """Return every trained trial as a line through its hyperparameters."""
        return self._figure("parallel")

    def plot_timeline(self) -> Figure:
        """Return which trial trained where and when."""
        return self._figure("timeline")

    def plot_ledger(self) -> Figure:
        """Return where the hours went, by how trials ended."""
        return self._figure("ledger")

    def _figure(self, name: str, **options: Any) -> Figure:
        from sweepkit.report.figures import FIGURES

        return FIGURES[name](self, **options)

    # Write

    def to_yaml(self, path: Path | str | None = None) -> str:
        """Return the study as a study file, and write it to ``path`` where one is given.

        Relative paths in a file start from its folder: write it where the notebook lies. A task that goes by value is
        written to the study's folder, and the file names it.
        """
        from sweepkit.check.study_file import to_yaml

        text = to_yaml(self)
        if path is not None:
            self._write_task()
            Path(path).write_text(text, encoding="utf-8")
        return text

    def _write_task(self) -> None:
        """Put a task that goes by value where the study says it lies; not while another driver runs with the last one."""
        if self._kind is None or self.task.pickle is None:
            return
        from sweepkit.study.locks import StudyLock

        data = by_value.dumps(self._kind)  # as it is now: what it uses may have changed since the study was made
        with StudyLock(self.place):
            file = self.home / self.task.pickle
            draft = file.with_suffix(".new")  # a new file: the archive may hold a link to the old one
            draft.write_bytes(data)
            draft.replace(file)


def load_study(path: Path | str, overrides: Iterable[str] = (), *, check: bool = True) -> Study:
    """Return the study in a file, or, by its name, one of this project that ran.

    ``overrides`` are ``a.b=value`` texts as ``--set`` takes them. Raises StudyFileError with every problem of the file at
    once; ``check`` False leaves out the rules that need the installed libraries.
    """
    from sweepkit.check.find import find_study, read_study

    return Study.of(find_study(str(path), overrides).study if check else read_study(str(path), overrides))


def _where(kind: type[Task], home: Path) -> dict[str, Any] | None:
    """Return how a study file names a Task's class: a kind, or a file of the project; None where it cannot."""
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
            f"task: the options of {type(task).__name__} must be what YAML can say: {error}; "
            "keep other objects in a global that its methods use"
        ) from error


def _wrong_options(study: data.StudyData, kind: type[Task]) -> list[Problem]:
    """Return what a class that no file holds does not take, or lacks, of what the study gives it as ``task.NAME``.

    Of a range both ends are tried, of a choice every value.
    """
    given = [
        (each.path, each.name.removeprefix("task."), value)
        for each in visit(study.space)
        if each.name.startswith("task.")
        for value in _extremes(each.parameter)
    ]
    first = {name: value for _, name, value in reversed(given)}
    problems = []
    for path, name, value in given or [("task", "", None)]:
        try:
            load_task(study.task, study.home, {**first, name: value} if name else {}, kind=kind)
        except InputError as error:
            told = [line.partition(": ") for line in str(error).splitlines()]
            problems += [Problem(path if key == f"task.{name}" else key, said) for key, _, said in told]
    derived = {each.name for each in visit(study.space) if isinstance(each.parameter, Expression)}
    return [problem for problem in dict.fromkeys(problems) if problem.path not in derived]


def _extremes(parameter: Any) -> list[Any]:
    if isinstance(parameter, (Float, Int)):
        return [parameter.low, parameter.high]
    if isinstance(parameter, Choice):
        return list(parameter.choices)
    return [] if isinstance(parameter, Expression) else [parameter]
