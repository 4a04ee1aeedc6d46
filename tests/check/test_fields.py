"""What installed libraries accept is read from their sources, and agrees with what importing them says."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from sweepkit.check.fields import UNKNOWN, Field
from sweepkit.check.fields.arguments import RATIOS, REMOVED, RENAMED, lora_fields, training_fields
from sweepkit.check.fields.classes import read_class, read_signature
from sweepkit.check.fields.models import configuration_fields
from sweepkit.check.rules.searching import options_of
from sweepkit.study.samplers import PRUNERS, SAMPLERS
from sweepkit.tasks.arguments import OWNED, SWEEPKIT_DEFAULTS

SOURCE = """
from __future__ import annotations
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Literal, Optional, Union


class Mode(Enum):
    PLAIN = "plain"
    FANCY = "fancy"


class Above:
    inherited: int = 1
    replaced: str = "above"


class Below(Above):
    kind: ClassVar[str] = "below"
    attribute_map = {"alias": "number"}
    number: float = 0.5
    needed: int
    mode: Mode | str = "plain"
    word: Literal["a", "b"] = "a"
    maybe: Optional[dict[str, Any]] = None
    either: Union[list[str], bool] = True
    quoted: "int | None" = None
    own: SomethingElse = None
    made: list = field(default_factory=list)
    computed: int = compute()
    replaced = "below"
    _private: int = 3

    def __init__(self, first, second: int = 2, *, third: str = "x", **rest):
        pass
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "source.py"
    file.write_text(SOURCE)
    return file


def field(
    name: str, kinds: str, default: object = UNKNOWN, choices: tuple[str, ...] = (), required: bool = False
) -> Field:
    return Field(name, frozenset(kinds.split()), default, choices, required)


def test_fields_of_a_class_and_its_bases_are_read_without_importing_it(source: Path) -> None:
    found = read_class(source, "Below")
    assert found is not None
    assert dict(found.fields) == {
        "inherited": field("inherited", "int", 1),
        "replaced": field("replaced", "str", "below"),
        "number": field("number", "float", 0.5),
        "needed": field("needed", "int", required=True),
        "mode": field("mode", "str", "plain", ("plain", "fancy")),
        "word": field("word", "str", "a", ("a", "b")),
        "maybe": field("maybe", "dict none", None),
        "either": field("either", "list bool", True),
        "quoted": field("quoted", "int none", None),
        "own": field("own", "", None),
        "made": field("made", "list", []),
        "computed": field("computed", "int"),
    }
    assert (found.constants["kind"], found.constants["attribute_map"]) == ("below", {"alias": "number"})


def test_a_signature_is_read_without_self_and_rest(source: Path) -> None:
    assert dict(read_signature(source, "Below")) == {
        "first": field("first", "", required=True),
        "second": field("second", "int", 2),
        "third": field("third", "str", "x"),
    }


def test_a_class_is_found_through_imports(source: Path) -> None:
    (source.parent / "other.py").write_text(
        "from source import Below as Found\nclass Mine(Found):\n    extra: bool = False\n"
    )
    found = read_class(source.parent / "other.py", "Mine")
    assert found is not None
    assert found.fields["number"] == field("number", "float", 0.5)
    assert (found.bases, found.unread) == (("Found", "Above"), ())


def test_a_class_that_is_its_own_base_is_no_endless_road(source: Path) -> None:
    source.write_text("class Round(Round):\n    x: int = 1\n")
    found = read_class(source, "Round")
    assert found is not None and list(found.fields) == ["x"]


def test_training_arguments_are_read_as_importing_them_says() -> None:
    from transformers import TrainingArguments

    fields = {each.name: each.default for each in dataclasses.fields(TrainingArguments) if each.init}
    found = training_fields()
    assert set(found) == set(fields)
    known = {
        name: field.default for name, field in found.items() if not isinstance(field.default, (list, type(UNKNOWN)))
    }
    assert known == {name: fields[name] for name in known}
    assert set(fields) - set(known) <= {"include_for_metrics"}


def test_closed_sets_are_those_of_the_enums() -> None:
    from transformers import SchedulerType
    from transformers.training_args import OptimizerNames

    found = training_fields()
    assert found["lr_scheduler_type"].choices == tuple(each.value for each in SchedulerType)
    assert found["optim"].choices == tuple(each.value for each in OptimizerNames)
    assert found["train_sampling_strategy"].choices == ("random", "sequential", "group_by_length", "batch_rebalance")
    assert found["eval_strategy"].choices == ("no", "steps", "epoch")


def test_old_names_are_gone_and_the_tables_name_what_exists() -> None:
    fields = set(training_fields())
    assert fields & (RENAMED.keys() | REMOVED.keys()) == set()
    assert RENAMED.keys() & REMOVED.keys() == set()
    assert {text.split()[0] for text in RENAMED.values()} - fields == {"a"}  # "a model.* name, …"
    assert (OWNED.keys() | SWEEPKIT_DEFAULTS.keys() | RATIOS) <= fields


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "gpt2", "roberta", "vit", "llama"])
def test_configuration_fields_hold_what_the_configuration_holds(model_type: str) -> None:
    from transformers import CONFIG_MAPPING

    found = configuration_fields(model_type)
    assert found is not None
    configuration = CONFIG_MAPPING[model_type]()
    missing = {name for name in configuration.to_dict() if name not in found and not name.startswith("_")}
    assert missing <= {"model_type", "transformers_version", "rope_parameters"}
    for name, each in found.items():
        if isinstance(each.default, float):
            assert getattr(configuration, name) == each.default


def test_an_unknown_model_type_is_not_guessed() -> None:
    assert configuration_fields("no-such-model") is None


def test_lora_fields_are_those_of_peft() -> None:
    peft = pytest.importorskip("peft", reason="pip install 'sweepkit[peft]'")
    found = lora_fields()
    assert found is not None
    assert set(found) <= {each.name for each in dataclasses.fields(peft.LoraConfig)}
    assert (found["r"], found["lora_alpha"].kinds) == (field("r", "int", 8), frozenset({"int"}))
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


@pytest.mark.real
def test_reading_imports_nothing_of_what_it_reads() -> None:
    script = (
        "import sys\n"
        "from sweepkit.check.fields import arguments, models\n"
        "arguments.training_fields(), arguments.lora_fields(), models.configuration_fields('bert')\n"
        "print([name for name in ('torch', 'transformers', 'peft', 'optuna', 'numpy') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
