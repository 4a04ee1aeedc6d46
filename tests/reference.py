"""Writes the reference pages of ``studies/how-to/`` and the schemas for editors from the code: ``make reference``.

Tests hold them to the code.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sweepkit
from sweepkit.check.reference import Part, Row, parts
from sweepkit.check.schema import recipe_schema, schema
from sweepkit.study.errors import SweepError
from sweepkit.tasks.kinds import KINDS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "studies" / "how-to"
WRITTEN = "<!-- Written by `make reference` from the docstrings; change those. -->"
RESULTS = (
    ("report.watch", "Outcome", "what a run returns"),
    ("trial.trial", "Trial", "a row of a study: `study.best`, `study.front`"),
    ("report.verdict", "Verdict", "`study.verdict`"),
    ("report.health", "Finding", "an item of `study.findings()`"),
)
"""Classes that calls return and that are not imported by name: module, class, where it is met."""
PARAMETERS = (sweepkit.Float, sweepkit.Int, sweepkit.Choice, sweepkit.Expression)
"""Written into studies; what sweepkit does with them is its own affair."""


def plain(text: str) -> str:
    """Return a docstring's words in Markdown."""
    return re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", text).replace("``", "`")


def cell(text: str) -> str:
    return plain(text).replace("|", r"\|")


def keys_page() -> str:
    found = list(parts())
    of_kinds = [part for part in found if part.title in KINDS]
    counted = Counter(row for part in of_kinds for row in part.rows)
    shared = [row for row, times in counted.items() if 2 * times > len(of_kinds)]
    linked = {part.title: re.sub(r"[^\w-]", "", part.title) for part in found if part.level == 2}
    lines = [
        "# The keys of a study file",
        "",
        WRITTEN,
        "",
        "Every key with its type, its default and its meaning; `sweep schema --explain` prints the same. The options of",
        "samplers and pruners are those of [Optuna's](https://optuna.readthedocs.io) classes, the fields of `training` those",
        "of [TrainingArguments](https://huggingface.co/docs/transformers/main_classes/trainer).",
    ]
    for part in found:
        if part in of_kinds and part is of_kinds[0]:
            lines += section(Part(3, "Every kind", "A kind that differs says so in its own table.", shared), {})
        rows = [row for row in part.rows if part not in of_kinds or row not in shared]
        title = f"task.type: {part.title}" if part in of_kinds else part.title
        lines += section(Part(max(part.level, 2), title, part.meaning, rows), linked if part.level == 1 else {})
    return "\n".join(lines) + "\n"


def section(part: Part, linked: dict[str, str]) -> Iterator[str]:
    yield from ("", f"{'#' * part.level} {part.title}", "")
    if part.meaning:
        yield from (plain(part.meaning), "") if part.rows else (plain(part.meaning),)
    if part.rows:
        yield from ("| key | type | default | meaning |", "| --- | --- | --- | --- |")
        yield from (line(row, linked) for row in part.rows)


def line(row: Row, linked: dict[str, str]) -> str:
    key = f"[`{row.key}`](#{linked[row.key]})" if row.key in linked else f"`{row.key}`"
    default = f"*{row.default}*" if row.default in ("", "needed") else f"`{row.default}`"
    return f"| {key} | {cell(row.type)} | {default.replace('**', '')} | {cell(row.meaning)} |"


def api_page() -> str:
    lines = ["# The Python API", "", WRITTEN, "", "What `from sweepkit import …` gives. What is not here may change."]
    errors = [name for name in sweepkit.__all__ if is_error(getattr(sweepkit, name))]
    others = {name: getattr(sweepkit, name) for name in sweepkit.__all__ if name not in (*errors, "__version__")}
    for name in sorted(others, key=lambda name: (others[name] in PARAMETERS, name.lower())):
        lines += about(name, others[name])
    lines += ["", "## Errors", "", "| error | is a | exit code | when |", "| --- | --- | --- | --- |"]
    for name in sorted(errors, key=lambda name: len(getattr(sweepkit, name).__mro__)):
        error = getattr(sweepkit, name)
        lines.append(f"| `{name}` | `{error.__base__.__name__}` | {error.exit_code} | {cell(summary(error))} |")
    lines += ["", "## What calls return"]
    for module, name, where in RESULTS:
        lines += about(f"{name}: {where}", getattr(importlib.import_module(f"sweepkit.{module}"), name), level=3)
    return "\n".join(lines) + "\n"


def is_error(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, SweepError)


def summary(value: Any) -> str:
    return " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())


def about(title: str, value: Any, *, level: int = 2) -> Iterator[str]:
    yield from ("", f"{'#' * level} {title}", "")
    if not isinstance(value, type):
        yield from ("```text", signature(title, value), "```", "", text_of(value))
        return
    yield text_of(value)
    attributes = [*fields(value), *properties(value)]
    if attributes:
        yield from ("", "| attribute | type | meaning |", "| --- | --- | --- |")
        yield from (f"| `{name}` | {cell(kind)} | {cell(meaning)} |" for name, kind, meaning in attributes)
    for name, each in vars(value).items() if value not in PARAMETERS else ():
        function = getattr(each, "__func__", each)
        if is_public(name) and inspect.isfunction(function) and function.__module__.startswith("sweepkit."):
            yield from ("", f"`{signature(name, function)}`", "", text_of(function))


def text_of(value: Any) -> str:
    """Return a docstring without its doctests."""
    paragraphs = (inspect.getdoc(value) or "").split("\n\n")
    return plain("\n\n".join(each for each in paragraphs if not each.startswith(">>>")))


def is_public(name: str) -> bool:
    return not name.startswith("_") and name != "model_config"


def fields(value: type) -> Iterator[tuple[str, str, str]]:
    """Yield a class's own fields: name, type and what their docstrings say."""
    body = next(node for node in ast.parse(inspect.getsource(value)).body if isinstance(node, ast.ClassDef)).body
    for node, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and is_public(node.target.id):
            told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            meaning = " ".join(str(after.value.value).split()) if told else ""
            yield node.target.id, f"`{ast.unparse(node.annotation)}`", meaning


def properties(value: type) -> Iterator[tuple[str, str, str]]:
    for name, each in vars(value).items():
        if isinstance(each, property) and is_public(name):
            yield name, f"`{each.fget.__annotations__['return']}`", " ".join((inspect.getdoc(each) or "").split())


def signature(name: str, function: Any) -> str:
    """Return how a function is called, with its annotations as written and without ``self``."""
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(function)))
    return name + re.sub(r"^\((self|cls)(, )?", "(", text)


def pages() -> dict[Path, str]:
    return {FOLDER / "keys.md": keys_page(), FOLDER / "api.md": api_page()}


def schemas() -> dict[Path, dict[str, Any]]:
    """Return the schemas that shipped studies and recipes name in their first lines, for the libraries of constraints.txt."""
    return {ROOT / "studies" / "study.schema.json": schema(), ROOT / "sweeps" / "recipe.schema.json": recipe_schema()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
    for path, found in schemas().items():
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
