"""Holds what the import contract in pyproject.toml cannot: heavy libraries, what light commands load, docstrings."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import grimp
import pytest

import sweepkit

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "sweepkit"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# Which packages may import a heavy library, anywhere in their code.
TRAINING = ("tasks", "trial", "api", "check.fields.child")  # the last one runs in a process of its own
HEAVY = {
    "torch": TRAINING,
    "transformers": TRAINING,
    "accelerate": TRAINING,
    "datasets": TRAINING,
    "evaluate": TRAINING,
    "peft": TRAINING,
    "safetensors": TRAINING,
    "mlflow": ("trackers.mlflow",),
    "ray": ("backends.ray",),
}

LIGHT = ("torch", "transformers", "datasets", "evaluate", "ray", "mlflow", "optuna", "pandas", "sklearn", "scipy")


@cache
def modules() -> dict[str, ast.Module]:
    """Return every module, named without ``sweepkit.``; the package's own face, ``__init__``, stands above all."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = ast.parse(path.read_text(), filename=str(path))
    return found


def imports(tree: ast.Module, package: str) -> Iterator[str]:
    """Yield the full names of all imports, those inside functions and for type checkers too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{package}: imports are written in full, without leading dots"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def within(name: str, places: tuple[str, ...]) -> bool:
    """Whether a module is one of the places or lies inside one."""
    return any(name == place or name.startswith(place + ".") for place in places)


PARTS = [name for name in modules() if name != "__init__"]


@pytest.mark.parametrize("name", PARTS)
def test_heavy_libraries_stay_where_they_belong(name: str) -> None:
    roots = {target.split(".")[0] for target in imports(modules()[name], name)}
    assert {root for root in roots & HEAVY.keys() if not within(name, HEAVY[root])} == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("sweepkit", exclude_type_checking_imports=True)
    imported = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(imported).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@cache
def names_of_its_own() -> set[str]:
    """Return the functions, classes and attributes that the package itself defines."""
    nodes = [node for name, tree in modules().items() if not name.endswith(".private") for node in ast.walk(tree)]
    found = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in nodes:
        if isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Store):
            words = ast.unparse(node).split(".")
            found |= {words[-1]} if words[:-1] in ([], ["self"]) else set()
    return found


@pytest.mark.parametrize("name", [name for name in PARTS if not name.endswith(".private")])
def test_private_names_of_other_libraries_stand_in_modules_named_private(name: str) -> None:
    used = {node.attr for node in ast.walk(modules()[name]) if isinstance(node, ast.Attribute)}
    imported = {part for target in imports(modules()[name], name) for part in target.split(".")[1:]}
    private = {each for each in used | imported if re.fullmatch(r"_[^_].*", each)}
    assert private - names_of_its_own() - {"_exit"} == set()  # os._exit is documented


PARTICIPLE = (
    r"(?!seed)[a-z]+ed|said|told|taken|meant|found|made|given|known|kept|left|drawn|seen|gone|written|shown|held|done"
)


@pytest.mark.parametrize("name", PARTS)
def test_functions_are_named_by_verbs_or_nouns_not_participles(name: str) -> None:
    functions = [node.name for node in modules()[name].body if isinstance(node, ast.FunctionDef)]
    assert [each for each in functions if re.fullmatch(PARTICIPLE, each)] == []


def test_the_package_has_eleven_rooms() -> None:
    rooms = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    floors = PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    assert rooms == {room for floor in floors for room in floor.split(" | ")}
    assert len(rooms) == 11


SMALL = ("trackers.mlflow.private",)  # one call


@pytest.mark.parametrize("name", PARTS)
def test_files_and_functions_can_be_read_in_one_sitting(name: str) -> None:
    """Arguments are counted by ruff's PLR0913."""
    tree = modules()[name]
    path = SOURCE.joinpath(*name.split("."))
    lines = len((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text().splitlines())
    least = 0 if path.is_dir() or name in ("__main__", *SMALL) else 25
    assert least <= lines <= 400, f"{name} has {lines} lines"
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    long = {each.name: size for each in functions if (size := (each.end_lineno or 0) - each.lineno + 1) > 50}
    assert long == {}, "functions of more than 50 lines"
    tangled = {each.name: count for each in functions if (count := complexity(each)) > 20}
    assert tangled == {}, "functions of a complexity above 20, as radon counts it"


DECISIONS: dict[type[ast.AST], Callable[[Any], int]] = {
    ast.BoolOp: lambda node: len(node.values) - 1,
    ast.Try: lambda node: len(node.handlers) + bool(node.orelse),
    ast.If: lambda node: 1,
    ast.IfExp: lambda node: 1,
    ast.Assert: lambda node: 1,
    ast.For: lambda node: 1 + bool(node.orelse),
    ast.While: lambda node: 1 + bool(node.orelse),
    ast.comprehension: lambda node: 1 + len(node.ifs),
}


def complexity(function: ast.AST) -> int:
    """Return McCabe's number as radon has it; functions inside count apart."""
    inside = [node for node in ast.iter_child_nodes(function) if not isinstance(node, ast.FunctionDef)]
    return 1 + sum(DECISIONS.get(type(node), lambda _: 0)(node) + complexity(node) - 1 for node in inside)


def undocumented(tree: ast.Module, name: str) -> Iterator[str]:
    """Yield public classes, functions and methods without a docstring; functions inside functions are private."""
    if not ast.get_docstring(tree):
        yield f"{name}: the module itself"
    levels: list[tuple[ast.Module | ast.ClassDef, str]] = [(tree, name)]
    while levels:
        level, path = levels.pop()
        for node in level.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.name[0] != "_":
                if not ast.get_docstring(node):
                    yield f"{path}.{node.name}"
                if isinstance(node, ast.ClassDef):
                    levels.append((node, f"{path}.{node.name}"))


@pytest.mark.parametrize("name", [*PARTS, "__init__"])
def test_every_public_name_says_what_it_is(name: str) -> None:
    assert list(undocumented(modules()[name], name)) == []


def loaded_after(code: str, *arguments: str) -> set[str]:
    """Return which libraries that a light command must not import a fresh interpreter has imported after ``code``."""
    script = f"import sys\n{code}\nprint('loaded:', *sorted({set(LIGHT)!r} & sys.modules.keys()))"
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(done.stdout.splitlines()[-1].removeprefix("loaded:").split())


AS_COMMAND = """
from sweepkit.cli import main
sys.argv[0] = "sweep"
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


@pytest.mark.real
def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import sweepkit") == set()


@pytest.mark.real
def test_studies_and_spaces_load_nothing_heavy() -> None:
    assert loaded_after("from sweepkit import Study, Float, Int, Choice, Expression, Task, load_study") == set()


@pytest.mark.real
def test_interfaces_and_errors_load_nothing_heavy() -> None:
    code = (
        "from sweepkit.backends import Backend, Session\n"
        "from sweepkit.trackers import Tracker\n"
        "from sweepkit import InputError, StudyFailed, StudyFileError, SweepError\n"
        "assert issubclass(StudyFileError, InputError) and issubclass(InputError, SweepError)"
    )
    assert loaded_after(code) == set()


@pytest.mark.real
def test_help_loads_nothing_heavy() -> None:
    assert loaded_after(AS_COMMAND, "--help") == set()


@pytest.mark.real
def test_check_loads_optuna_alone(project: Path, tiny_bert: Path) -> None:
    (project / "data.csv").write_text("text,label\n" + "free prize,spam\nsee you,ham\n" * 20)
    (project / "study.yaml").write_text(
        "name: light\n"
        f"task: {{type: text-classification, model: '{tiny_bert}', data: {{path: data.csv}}}}\n"
        "objective: {metric: eval_accuracy, direction: maximize}\n"
        "space: {learning_rate: {low: 1e-5, high: 1e-3, log: true}, model.hidden_dropout_prob: {low: 0.0, high: 0.3}}\n"
        "pruner: {type: asha}\n"
        "budget: {trials: 2}\n"
    )
    assert loaded_after(AS_COMMAND, "check", "study.yaml") == {"optuna"}


def test_every_public_name_of_the_package_is_there() -> None:
    missing = [name for name in sweepkit.__all__ if not hasattr(sweepkit, name)]
    assert missing == []
