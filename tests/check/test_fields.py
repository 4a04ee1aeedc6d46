"""What installed libraries accept is found out in a child process, by any path, and remembered until it changes."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from sweepkit.check.fields import UNKNOWN, Field, facts
from sweepkit.check.fields.arguments import RATIOS, REMOVED, RENAMED, SHORTHANDS
from sweepkit.check.fields.describe import fields_of
from sweepkit.check.fields.installed import _arguments, read_installed
from sweepkit.check.rules.searching import options_of
from sweepkit.study.errors import InputError
from sweepkit.study.samplers import PRUNERS, SAMPLERS
from sweepkit.tasks.arguments import OWNED, SWEEPKIT_DEFAULTS


class Mode(Enum):
    PLAIN = "plain"
    FANCY = "fancy"


@dataclasses.dataclass
class Above:
    inherited: int = 1
    replaced: str = "above"


@dataclasses.dataclass
class Below(Above):
    kind: ClassVar[str] = "below"
    needed: int = dataclasses.field(kw_only=True)
    number: float = 0.5
    mode: Mode | str = Mode.PLAIN
    word: Literal["a", "b"] = "a"
    listed: str = dataclasses.field(default="x", metadata={"choices": ["x", "y"]})
    maybe: dict[str, Any] | None = None
    either: list[str] | bool = True
    quoted: "int | None" = None  # noqa: UP037  # two layers of quotes
    own: Mode | int | Above = 1  # another class: anything
    unknown: SomethingElse = None  # type: ignore[name-defined]  # noqa: F821  # as under TYPE_CHECKING
    made: list[int] = dataclasses.field(default_factory=list)
    path: Path | None = Path("a")
    infinite: float = math.inf
    replaced: str = "below"
    hidden: int = dataclasses.field(default=3, init=False)
    _private: int = 3


class Plain:
    def __init__(self, first: Any, second: int = 2, *, third: str = "x", **rest: Any) -> None: ...


def field(
    name: str, kinds: str, default: object = UNKNOWN, choices: tuple[str, ...] = (), required: bool = False
) -> Field:
    return Field(name, frozenset(kinds.split()), default, choices, required)


def test_fields_of_a_dataclass_have_kinds_defaults_and_closed_sets() -> None:
    assert fields_of(Below) == {
        "inherited": field("inherited", "int", 1),
        "replaced": field("replaced", "str", "below"),
        "number": field("number", "float", 0.5),
        "needed": field("needed", "int", required=True),
        "mode": field("mode", "str", "plain", ("plain", "fancy")),
        "word": field("word", "str", "a", ("a", "b")),
        "listed": field("listed", "str", "x", ("x", "y")),
        "maybe": field("maybe", "dict none", None),
        "either": field("either", "list bool", True),
        "quoted": field("quoted", "int none", None),
        "own": field("own", "", 1),
        "unknown": field("unknown", "", None),
        "made": field("made", "list", []),
        "path": field("path", "str none"),
        "infinite": field("infinite", "float", math.inf),
    }


def test_other_classes_have_the_fields_that_they_are_made_with() -> None:
    assert fields_of(Plain) == {
        "first": field("first", "", required=True),
        "second": field("second", "int", 2),
        "third": field("third", "str", "x"),
    }


@pytest.mark.parametrize("each", fields_of(Below).values(), ids=lambda each: each.name)
def test_a_field_survives_the_cache(each: Field) -> None:
    assert Field.read(each.name, json.loads(json.dumps(each.plain()))) == each


def test_training_arguments_are_read_as_importing_them_says() -> None:
    from transformers import TrainingArguments

    fields = {each.name: each.default for each in dataclasses.fields(TrainingArguments) if each.init}
    found = read_installed().training
    assert set(found) == set(fields)
    known = {
        name: field.default for name, field in found.items() if not isinstance(field.default, (list, type(UNKNOWN)))
    }
    assert known == {name: fields[name] for name in known}
    assert set(fields) - set(known) <= {"include_for_metrics"}


def test_closed_sets_are_those_of_the_enums() -> None:
    from transformers import SchedulerType
    from transformers.training_args import OptimizerNames

    found = read_installed().training
    assert found["lr_scheduler_type"].choices == tuple(each.value for each in SchedulerType)
    assert found["optim"].choices == tuple(each.value for each in OptimizerNames)
    assert found["train_sampling_strategy"].choices == ("random", "sequential", "group_by_length", "batch_rebalance")
    assert found["eval_strategy"].choices == ("no", "steps", "epoch")


def test_old_names_are_gone_and_the_tables_name_what_exists() -> None:
    fields = set(read_installed().training)
    assert fields & (RENAMED.keys() | REMOVED.keys()) == set()
    assert RENAMED.keys() & REMOVED.keys() == set()
    assert {text.split()[0] for text in RENAMED.values()} - fields == {"a"}  # "a model.* name, …"
    assert {name for name in SHORTHANDS.values() if "." not in name} <= fields
    assert (OWNED.keys() | SWEEPKIT_DEFAULTS.keys() | RATIOS) <= fields


MODELS = ("bert", "distilbert", "gpt2", "roberta", "vit", "llama")


@pytest.mark.parametrize("model_type", MODELS)
def test_configuration_fields_hold_what_the_configuration_holds(model_type: str) -> None:
    from transformers import CONFIG_MAPPING

    found = read_installed(MODELS).configurations[model_type]
    assert found is not None
    configuration = CONFIG_MAPPING[model_type]()
    missing = {name for name in configuration.to_dict() if name not in found and not name.startswith("_")}
    assert missing <= {"model_type", "transformers_version", "rope_parameters"}
    for name, each in found.items():
        if isinstance(each.default, float):
            assert getattr(configuration, name) == each.default


def test_an_unknown_model_type_is_not_guessed() -> None:
    assert read_installed(["no-such-model"]).configurations == {"no-such-model": None}


def test_lora_fields_are_those_of_peft() -> None:
    peft = pytest.importorskip("peft", reason="pip install 'sweepkit[peft]'")
    adapters = read_installed().adapters
    assert adapters is not None and adapters["LORA"].label == "LoraConfig"
    found = adapters["LORA"].fields
    assert set(found) <= {each.name for each in dataclasses.fields(peft.LoraConfig)}
    assert (dataclasses.replace(found["r"], meaning=""), found["r"].meaning != "") == (field("r", "int", 8), True)
    assert found["lora_alpha"].kinds == frozenset({"int"})
    assert found["bias"].choices == ("none", "all", "lora_only")


@pytest.mark.parametrize("kind", sorted(SAMPLERS.keys() - {"grid"}))
def test_sampler_options_are_parameters_of_optunas_class(kind: str) -> None:
    cls = SAMPLERS[kind].cls()
    assert cls is not None
    parameters, found = inspect.signature(cls).parameters, options_of(cls)
    assert found.keys() <= parameters.keys()
    assert {name: each.default for name, each in found.items()} == {name: parameters[name].default for name in found}


@pytest.mark.parametrize("kind", sorted(PRUNERS.keys() - {"none"}))
def test_pruner_options_are_parameters_of_optunas_class(kind: str) -> None:
    cls = PRUNERS[kind].cls()
    assert options_of(cls).keys() == inspect.signature(cls).parameters.keys() - {PRUNERS[kind].wraps}


CONFIG = """
from dataclasses import dataclass, field
from transformers import TrainingArguments

print("noise on standard output")


@dataclass
class DPOConfig(TrainingArguments):
    beta: float = field(default=0.1, metadata={"help": "how far from the reference"})
    loss_type: list[str] = field(default_factory=lambda: ["sigmoid"])
    learning_rate: float = 1e-6


class Outer:
    class Inner(DPOConfig):
        pass


class Trainer:
    pass
"""
PACKAGE: dict[str, str] = {
    "trlike/__init__.py": """
import sys
from typing import TYPE_CHECKING
from transformers.utils import _LazyModule

if TYPE_CHECKING:
    from .trainer.config import DPOConfig
else:
    structure = {"trainer.config": ["DPOConfig", "Trainer"]}
    sys.modules[__name__] = _LazyModule(__name__, globals()["__file__"], structure, module_spec=__spec__)
""",
    "trlike/trainer/__init__.py": "",
    "trlike/trainer/config.py": CONFIG,
    "getting.py": "def __getattr__(name):\n    import trlike.trainer.config as found\n    return getattr(found, name)\n",
    "aliased.py": "from trlike.trainer.config import DPOConfig as _D\nMine = _D\n",
    "starred.py": "from trlike.trainer.config import *\n",
    "broken.py": "def f(:\n",
    "quits.py": "raise SystemExit(3)\n",
    "raises.py": "import not_there\n",
}
FOUND = (
    *("trlike:DPOConfig", "trlike.trainer.config:DPOConfig", "trlike.trainer.config:Outer.Inner", "getting:DPOConfig"),
    *("aliased:Mine", "starred:DPOConfig"),
)
LOST = {
    "trlike:DPOConfg": "trlike:DPOConfg cannot be imported: module trlike has no attribute DPOConfg; did you mean DPOConfig?",
    "trlike.DPOConfig": "expected module:Class, got trlike.DPOConfig; did you mean trlike:DPOConfig?",
    "nowhere:DPOConfig": "nowhere:DPOConfig cannot be imported: No module named 'nowhere'",
    "trlike:Trainer": "trlike:Trainer is not a subclass of transformers.TrainingArguments",
    "broken:A": "broken:A cannot be imported: invalid syntax (broken.py, line 1)",
    "quits:A": "SystemExit: 3",
    "raises:A": "raises:A cannot be imported: No module named 'not_there'",
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return class path → facts, all from one child process."""
    folder = tmp_path_factory.mktemp("packages")
    for name, text in PACKAGE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        paths = [*FOUND, *LOST, "transformers:TrainingArguments"]
        found = facts.ask(*(_arguments(path, None) for path in paths))
        patch.setattr(facts, "_from_child", lambda questions: [questions] * len(questions))
        assert facts.ask(_arguments(FOUND[0], None)) == found[:1], "what was found is remembered"
        (folder / "trlike" / "trainer" / "config.py").write_text(CONFIG + "\n")
        assert facts.ask(_arguments(FOUND[0], None)) != found[:1], "until a file changes"
    return dict(zip(paths, found, strict=True))


@pytest.mark.real
@pytest.mark.parametrize("path", FOUND)
def test_arguments_are_found_by_every_path_they_can_be_imported_by(path: str, answers: dict[str, Any]) -> None:
    read = {name: Field.read(name, plain) for name, plain in answers[path].items()}
    assert read["beta"].meaning == "how far from the reference"
    found = {name: dataclasses.replace(each, meaning="") for name, each in read.items()}
    assert found["beta"] == field("beta", "float", 0.1)
    assert found["loss_type"] == field("loss_type", "list", ["sigmoid"])
    assert found["learning_rate"] == field("learning_rate", "float", 1e-6)
    assert found.keys() - {"beta", "loss_type"} == answers["transformers:TrainingArguments"].keys()


@pytest.mark.real
@pytest.mark.parametrize("path", LOST)
def test_a_path_that_cannot_be_imported_is_one_sentence(path: str, answers: dict[str, Any]) -> None:
    assert isinstance(answers[path], InputError)
    assert str(answers[path]) == LOST[path]


@pytest.mark.real
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import time\nwhile True: time.sleep(1)", "importing it did not end within 3 seconds"),
        ("import os\nos._exit(7)", "importing it ended the process (exit code 7)"),
        ("import os\nos.abort()", "importing it ended the process (signal 6)"),
        ("while True: print('on and on')", "importing it did not end within 3 seconds"),
        (
            "import os\nos.write(1, b'x' * 10**7)\nos._exit(7)",
            f"importing it ended the process (exit code 7): {'x' * 500}",
        ),
    ],
)
def test_a_file_that_hangs_or_ends_its_process_is_reported(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "DEADLINE_SECONDS", 3.0)
    (tmp_path / "task.py").write_text(code)
    [found] = facts.ask(("task", str(tmp_path / "task.py"), "Mine"))
    assert str(found).startswith(message) and len(str(found)) < 600
    assert [path.name for path in tmp_path.iterdir()] == ["task.py"]


def test_a_cache_that_cannot_be_written_or_read_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question = ("adapters", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    monkeypatch.setattr(facts.tempfile, "gettempdir", lambda: str(tmp_path))
    facts._remember(question, {"environment": "e", "files": {}, "facts": 1})
    assert facts._remembered(question, "e") == 1
    assert facts._remembered(question, "another") is facts._MISSING
    [file] = tmp_path.rglob("*.json")
    file.write_text("[half")
    assert facts._remembered(question, "e") is facts._MISSING
    monkeypatch.setattr(facts.tempfile, "gettempdir", lambda: "/proc/nowhere")
    facts._remember(question, {})


def test_what_others_could_have_written_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question = ("adapters", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(facts.tempfile, "gettempdir", lambda: "/proc/nowhere")
    facts._remember(question, {"environment": "e", "files": {}, "facts": 1})
    folder = tmp_path / "sweepkit"
    assert facts._remembered(question, "e") == 1 and folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert facts._remembered(question, "e") is facts._MISSING
    facts._remember(question, {"environment": "e", "files": {}, "facts": 2})
    folder.chmod(0o700)
    assert facts._remembered(question, "e") == 1


def test_folders_that_an_imported_package_adds_to_the_path_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray puts a folder of its own packages first, so that a notebook and the command would forget for each other."""
    folder = tmp_path / "site-packages" / "ray" / "thirdparty_files"
    (folder / "colorless-1.dist-info").mkdir(parents=True)
    before = facts._name(("adapters",)), facts._environment()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    assert (facts._name(("adapters",)), facts._environment()) == before


@pytest.mark.real
def test_a_check_imports_nothing_of_what_it_asks_about() -> None:
    read_installed(["bert"])
    script = (
        "import sys\n"
        "from sweepkit.check.fields.installed import read_installed\n"
        "read_installed(['bert'])\n"
        "print([name for name in ('torch', 'transformers', 'peft', 'optuna', 'numpy') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
