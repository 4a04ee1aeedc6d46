"""A sampler and a pruner of a person's own, from a file beside the study or a module: checked, and the same after any kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from making import toy_study
from sweepkit.check import check, known_values
from sweepkit.search.proposer import Proposer
from sweepkit.search.search import Search
from sweepkit.search.storage import open_storage
from sweepkit.study.errors import StudyFileError
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Finished

MINE = """
import numpy
import optuna

class Low(optuna.samplers.BaseSampler):
    \"\"\"Draws from the lower part of each range, together.\"\"\"

    def __init__(self, part: float = 0.5, *, seed: int | None = None) -> None:
        if not 0 < part <= 1:
            raise ValueError(f"part must be above 0 and at most 1, got {part}")
        self.part, self.random = part, numpy.random.RandomState(seed)

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {name: self.sample_independent(study, trial, name, each) for name, each in search_space.items()}

    def sample_independent(self, study, trial, name, each):
        return each.low + (each.high - each.low) * self.part * self.random.rand()

class Below(optuna.pruners.BasePruner):
    \"\"\"Stops what is worse than a limit.\"\"\"

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def prune(self, study, trial):
        return trial.intermediate_values[trial.last_step] < self.limit

class Other:
    pass
"""


def study_of(project: Path, **keys: Any) -> StudyData:
    (project / "mine.py").write_text(MINE)
    (project / "exits.py").write_text("raise SystemExit('bye')\n")
    (project / "beside.py").write_text("from mine import Low\nprint('read')\n")
    given = {"sampler": {"path": "mine.py:Low", "part": 0.1}, "pruner": {"path": "mine.py:Below", "limit": 0.5}, **keys}
    space = {"learning_rate": {"low": 0.0, "high": 1.0}, "weight_decay": {"low": 0.0, "high": 1.0}}
    return toy_study(project, space=space, **given)


def opened(study: StudyData) -> Search:
    study.place.folder.mkdir(parents=True, exist_ok=True)
    return Search(study, open_storage(study.place, study, repair=True), Proposer(study, known_values(study)))


def ran(search: Search) -> tuple[dict[str, Any], str]:
    """Return the next trial's hyperparameters, and what was decided at its first evaluation."""
    asked = search.ask()
    assert asked is not None
    value = asked.number / 2
    word = search.report(Evaluated(trial=asked.number, at=0, number=1, step=1, epoch=1, metrics={}, values=(value,)))
    search.tell(Finished(trial=asked.number, at=0, ending="complete", values=(value,)))
    return dict(asked.params), word


def test_it_proposes_and_prunes_the_same_whether_or_not_its_process_was_killed(project: Path) -> None:
    study = study_of(project)
    whole = opened(study)
    at_once = [ran(whole) for _ in range(3)]
    again = study.model_copy(update={"name": "again"}).at(project)
    assert [ran(opened(again)) for _ in range(3)] == at_once
    assert all(0 <= value <= 0.1 for params, _ in at_once for value in params.values())
    assert len({params["learning_rate"] for params, _ in at_once}) == 3
    assert [word for _, word in at_once] == ["prune", "continue", "continue"]


def test_a_class_of_a_module_is_taken_too(project: Path) -> None:
    study = study_of(project, sampler={"path": "optuna.samplers:BruteForceSampler"}, pruner={"type": "none"})
    assert study.sampler.title == "optuna.samplers:BruteForceSampler"
    assert type(study.sampler.kind.make({}, 0)).__name__ == "BruteForceSampler"


def test_a_file_may_import_what_lies_beside_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = study_of(project, sampler={"path": "beside.py:Low", "part": 0.1})
    assert type(check(study).study.sampler.kind.make({"part": 0.1}, 0)).__name__ == "Low"
    assert capsys.readouterr().out == "", "standard output is the command's, for --json"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages of OptunaHub that were downloaded before, at ``main`` and at a tag."""
    monkeypatch.setenv("OPTUNAHUB_CACHE_HOME", str(tmp_path / "hub"))
    samplers = tmp_path / "hub/github.com/optuna/optunahub-registry"
    for package, public in {"main/package/samplers/low": ["Low"], "v1/package/samplers/low": ["Low", "High"]}.items():
        (samplers / package).mkdir(parents=True)
        (samplers / package / "mine.py").write_text(MINE + "class High(Low):\n    pass\n")
        text = f"from .mine import Low, High\nprint('read')\n__all__ = {[*public, 'MINE']}\nMINE = 1\n"
        (samplers / package / "__init__.py").write_text(text)
    (samplers / "main/package/samplers/broken").mkdir()
    (samplers / "main/package/samplers/broken/__init__.py").write_text("import no_such_library\n")


@pytest.mark.real
@pytest.mark.usefixtures("hub")
def test_a_sampler_of_optunahub_proposes_the_same_after_a_kill(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_of(project, sampler={"path": "optunahub:samplers/low", "part": 0.1}, pruner={"type": "none"})
    assert check(study).study.sampler.title == "optunahub:samplers/low"
    whole = opened(study)
    at_once = [ran(whole)[0] for _ in range(3)]
    assert all(0 <= value <= 0.1 for params in at_once for value in params.values())
    again = study_of(
        project, name="again", sampler=study.sampler.model_dump(exclude_none=True), pruner={"type": "none"}
    )
    assert [ran(opened(again))[0] for _ in range(3)] == at_once
    assert capsys.readouterr().out == "", "standard output is the command's, for --json"


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("optunahub:samplers/low@v1", "expected optunahub:samplers/low:CLASS; the package has Low, High"),
        ("optunahub:samplers/low:Hi", "expected optunahub:samplers/low:CLASS; the package has Low"),
        ("optunahub:samplers/broken", "cannot be loaded: .*no_such_library"),
    ],
)
def test_a_package_of_optunahub_that_has_no_such_sampler_is_refused(project: Path, path: str, said: str) -> None:
    with pytest.raises(StudyFileError, match=rf"sampler\.path: {path}.*{said}"):
        check(study_of(project, sampler={"path": path}))
    chosen = study_of(project, sampler={"path": "optunahub:samplers/low@v1:High"}).sampler.kind.cls()
    assert chosen is not None and chosen.__name__ == "High"


def test_without_optunahub_its_extra_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweepkit.study.samplers.find_spec", lambda name: None)
    with pytest.raises(StudyFileError, match=r"optunahub:samplers/gone needs an extra .* 'sweepkit\[optunahub\]'"):
        check(study_of(project, sampler={"path": "optunahub:samplers/gone"}))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"sampler": {"path": "mine.py:Low", "prat": 0.1}}, "sampler.prat: mine.py:Low has no such option.*part"),
        ({"sampler": {"path": "mine.py:Low", "part": "x"}}, "sampler.part: .*number"),
        ({"sampler": {"path": "mine.py:Low", "part": 2.0}}, "sampler.part: part must be above 0"),
        ({"sampler": {"path": "mine.py:Lo"}}, "sampler.path: mine.py:Lo: there is no Lo; did you mean Low"),
        ({"sampler": {"path": "her.py:Low"}}, "sampler.path: .*her.py: cannot be imported: .*her.py"),
        ({"sampler": {"path": "mine.py:Other"}}, "mine.py:Other is not a subclass of optuna.samplers.BaseSampler"),
        ({"sampler": {"path": "mine.py"}}, "sampler.path: expected file.py:Class or package.module:Class, got mine.py"),
        ({"sampler": {"path": "exits.py:Low"}}, "sampler.path: .*exits.py:1: cannot be imported: SystemExit: bye"),
        ({"sampler": {"path": "no.such:Low"}}, "sampler.path: no.such:Low cannot be imported"),
        (
            {"pruner": {"path": "mine.py:Low"}},
            "pruner.path: mine.py:Low is not a subclass of optuna.pruners.BasePruner",
        ),
        ({"pruner": {"path": "mine.py:Below"}}, "pruner: mine.py:Below needs the option limit"),
    ],
    ids=lambda value: "",
)
def test_what_is_wrong_with_it_is_said(project: Path, keys: dict[str, Any], said: str) -> None:
    study = study_of(project, **keys)
    with pytest.raises(StudyFileError, match=said):
        check(study)


def test_type_and_path_exclude_each_other(project: Path) -> None:
    with pytest.raises(ValueError, match="type and path exclude each other"):
        study_of(project, sampler={"type": "gp", "path": "mine.py:Low"})
