"""Reads YAML 1.2 as plain data, with the file and line of every key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sweepkit.study.errors import Problem, StudyFileError
from sweepkit.study.files import first_line
from sweepkit.study.messages import show

Keys: TypeAlias = tuple[str | int, ...]
"""Where something stands: mapping keys and list indices from the top."""


@dataclass(frozen=True)
class Origin:
    """Where a key was written: a file and its line (from 1), or an option of the command line (no line)."""

    file: str
    line: int | None = None


@dataclass
class Document:
    """Plain data with the origin of its keys."""

    data: Any
    origins: dict[Keys, Origin] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    options: dict[Keys, Origin] | None = None
    """The origins without a line, once :meth:`cause` has looked for them."""

    def origin(self, keys: Keys) -> Origin | None:
        """Return the origin of the nearest key that is written down, going up; None for a document without keys."""
        for length in range(len(keys), -1, -1):
            if keys[:length] in self.origins:
                return self.origins[keys[:length]]
        return None

    def cause(self, keys: Keys) -> Origin | None:
        """Return the origin to blame for a problem here: the command line option that changed part of it, if any."""
        if self.options is None:
            self.options = {at: origin for at, origin in self.origins.items() if origin.line is None}
        if len(keys) > 1:
            for at, origin in self.options.items():
                if at[: len(keys)] == keys:
                    return origin
        return self.origin(keys)

    def locate(self, path: str) -> Keys:
        """Return the keys behind a dotted path as messages write it, as far as they exist.

        Keys may hold dots themselves (``space.model.dropout``), and a branch stands without the word ``choices``.
        """
        parts, keys, node = split(path), [], self.data
        while parts:
            step, node = _step(node, parts)
            if not step:
                break
            keys += step
            parts = parts[len(split(str(step[-1]))) :] if isinstance(step[-1], str) else parts[1:]
        return tuple(keys)


def _step(node: Any, parts: list[str | int]) -> tuple[list[str | int], Any]:
    """Return the keys that the next parts name (``choices`` may be implied), and the node they lead to."""
    if isinstance(node, list) and isinstance(parts[0], int) and parts[0] < len(node):
        return [parts[0]], node[parts[0]]
    if isinstance(node, Mapping):
        for length in range(len(parts), 0, -1):
            key = ".".join(str(part) for part in parts[:length])
            if key in node:
                return [key], node[key]
        if isinstance(node.get("choices"), Mapping):
            step, found = _step(node["choices"], parts)
            return (["choices", *step], found) if step else ([], None)
    return [], None


def split(path: str) -> list[str | int]:
    """Return the parts of a dotted path; ``enqueue[0].x`` and ``enqueue.0.x`` both hold the number 0."""
    parts = [part for part in re.split(r"\.|\[|\]", path) if part]
    return [int(part) if part.isdecimal() else part for part in parts]


def key_text(keys: Keys) -> str:
    """Return keys as messages write them: ``space.optim.adamw_torch.adam_beta2``, ``enqueue[0].learning_rate``."""
    path = ""
    for index, key in enumerate(keys):
        if keys[0] == "space" and key == "choices" and 1 < index < len(keys) - 1:
            continue
        path += f"[{key}]" if isinstance(key, int) else f".{key}" if path else str(key)
    return path


def read(text: str, file: str, *, line: bool = True) -> Document:
    """Return the document in a text. Raises StudyFileError where it is not valid YAML."""
    if len(text) > CHARACTERS:
        raise StudyFileError([Problem("", f"is too large: {len(text):,} characters, at most {CHARACTERS:,}", file)])
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _Composer
    document = Document(None)
    document.origins[()] = Origin(file, 1 if line else None)
    try:
        node = yaml.compose(text)
        if node is not None:
            document.data = _Reader(yaml, document, file, line).plain(node, ())
    except MarkedYAMLError as error:
        raise StudyFileError([_invalid(error, text, file, line)]) from error
    except YAMLError as error:
        at = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise StudyFileError(
            [Problem("", f"is not valid YAML: {first_line(error)}", file, at if line else None)]
        ) from error
    except _TooDeep as error:
        raise StudyFileError([Problem("", _TOO_DEEP, file, error.line if line else None)]) from error
    return document


CHARACTERS = 100_000
"""Size of the largest study file; reading it takes a second."""
_DEPTH, _VALUES = 40, 100_000
_TOO_DEEP = f"is nested more than {_DEPTH} levels deep"


class _TooDeep(Exception):
    """Nodes are nested too deep, first on a ``line`` (from 1)."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class _Composer(Composer):
    """Counts the nodes around each; what ruamel takes for a text grows with the square of its depth."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.depth > _DEPTH:
            raise _TooDeep(self.parser.peek_event().start_mark.line + 1)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _invalid(error: MarkedYAMLError, text: str, file: str, line: bool) -> Problem:
    """Return what a YAML parser complains about, with the place and the line it stands on."""
    lines = text.split("\n")
    mark, opened = error.problem_mark or error.context_mark, error.context_mark
    message = f"is not valid YAML: {error.problem or error.context}"
    if mark is None:
        return Problem("", message, file, 1 if line else None)
    hint = ""
    if opened is not None and (bracket := lines[opened.line][opened.column : opened.column + 1]) in tuple("[{\"'"):
        hint = f"; the {bracket}{f' of line {opened.line + 1}' if line else ''} is not closed"
        mark = mark if mark.line < len(lines) and lines[mark.line].strip() else opened
    row = lines[min(mark.line, len(lines) - 1)]
    if "\t" in row[: mark.column + 1]:
        hint = "; indent with spaces, not tabs"
    elif not hint and row[mark.column : mark.column + 2] in (": ", ":"):
        hint = "; put text that contains a colon in quotes"
    elif not hint and row[: mark.column].isspace():
        hint = "; check the indentation of this line"
    place = f" (column {mark.column + 1} of {row.strip()[:80]!r})" if row.strip() else ""
    return Problem("", f"{message}{place}{hint}", file, mark.line + 1 if line else None)


_COLON = re.compile(r"[\w.]+:\S+")


class _Reader:
    def __init__(self, yaml: YAML, document: Document, file: str, line: bool) -> None:
        self.yaml, self.document, self.file, self.line = yaml, document, file, line
        self.above: list[Node] = []
        self.values = 0

    def plain(self, node: Node, keys: Keys) -> Any:
        self.values += 1
        if any(node is each for each in self.above):
            self.complain(node, keys, "an alias refers to itself")
            return None
        if len(self.above) > _DEPTH:
            raise StudyFileError([self.problem(node, keys[:3], _TOO_DEEP)])
        if self.values > _VALUES:
            raise StudyFileError([self.problem(node, keys[:1], f"aliases make more than {_VALUES:,} values of it")])
        self.above.append(node)
        try:
            if isinstance(node, MappingNode):
                return {key: self.plain(value, (*keys, key)) for key, value in self.pairs(node, keys)}
            if isinstance(node, SequenceNode):
                return [self.item(each, (*keys, index)) for index, each in enumerate(node.value)]
            return self.scalar(node, keys)
        finally:
            self.above.pop()

    def item(self, node: Node, keys: Keys) -> Any:
        self.document.origins[keys] = self.origin(node)
        return self.plain(node, keys)

    def pairs(self, node: MappingNode, keys: Keys) -> Iterator[tuple[Any, Node]]:
        seen: dict[Any, int] = {}
        for key_node, value in node.value:
            if not isinstance(key_node, ScalarNode):
                self.complain(key_node, keys, "a key must be text")
                continue
            if key_node.value == "<<" and not key_node.style:
                self.complain(
                    key_node, keys, "<< is not supported; what several studies share belongs in a recipe (sweep)"
                )
                continue
            key = self.scalar(key_node, keys)
            if isinstance(key, str) and _COLON.fullmatch(key) and isinstance(value, ScalarNode) and value.value == "":
                self.complain(key_node, (*keys, key), "a space is missing after the colon")
                continue
            if seen and type(key) is not type(next(iter(seen))):
                self.complain(key_node, keys, f"keys of one mapping must be of one kind, got {key!r}; put it in quotes")
            elif key in seen:
                self.complain(key_node, (*keys, key), f"is written twice, first on line {seen[key]}")
            else:
                seen[key] = key_node.start_mark.line + 1
                self.document.origins[(*keys, key)] = self.origin(key_node)
                yield key, value

    def scalar(self, node: Node, keys: Keys) -> Any:
        try:
            value = self.yaml.constructor.construct_object(node)
        except (YAMLError, ValueError, OverflowError) as error:
            self.complain(node, keys, f"cannot be read: {getattr(error, 'problem', None) or error}")
            return None
        if isinstance(value, int) and abs(value) >= 2**63:
            self.complain(node, keys, "is a whole number beyond 64 bits")
            return None
        if isinstance(value, str) and any(each == "\0" or "\ud800" <= each <= "\udfff" for each in value):
            self.complain(node, keys, "holds a character that text cannot hold (NUL or half of a surrogate pair)")
            return None
        return value

    def origin(self, node: Node) -> Origin:
        return Origin(self.file, node.start_mark.line + 1 if self.line else None)

    def problem(self, node: Node, keys: Keys, message: str) -> Problem:
        origin = self.origin(node)
        return Problem(key_text(keys), message, origin.file, origin.line)

    def complain(self, node: Node, keys: Keys, message: str) -> None:
        self.document.problems.append(self.problem(node, keys, message))


def read_file(path: Path, label: str) -> Document:
    """Return the document in a file. Raises StudyFileError where it is missing or holds no mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyFileError([Problem("", "there is no such file", label)]) from None
    except IsADirectoryError:
        inside = f"; did you mean {Path(label) / 'study.yaml'}?" if (path / "study.yaml").is_file() else ""
        raise StudyFileError([Problem("", f"is a folder, not a study file{inside}", label)]) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise StudyFileError([Problem("", f"cannot be read: {reason}", label)]) from error
    document = read(text, label)
    if not isinstance(document.data, dict):
        found = "it is empty" if document.data is None else f"it holds {show(document.data)}"
        raise StudyFileError([Problem("", f"expected keys with values, but {found}", label, 1)])
    return document
