"""What a person typed of data and model, and what is there: kind, columns and model of ``sweep new`` and ``sweep tune``."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sweepkit.cli.studies import assignments
from sweepkit.study import messages, words
from sweepkit.study.errors import InputError, nearest
from sweepkit.study.files import printable
from sweepkit.study.paths import LONGEST_NAME, NAMING, is_name
from sweepkit.tasks import references
from sweepkit.tasks.data import SPLITS, DataSpec, count_skipped
from sweepkit.tasks.kinds import KINDS, kind_class
from sweepkit.tasks.lines import Unreadable
from sweepkit.tasks.locations import locate, name_columns
from sweepkit.tasks.recognise import Recognised, naming, recognise, shapes
from sweepkit.tasks.references import PACKAGE
from sweepkit.tasks.rows import choose, complete
from sweepkit.tasks.tables import read_quietly

LOCAL = re.compile(r"^[./~]|\.[A-Za-z]{2,7}$")
"""What looks like a local path rather than a name on the hub."""
CACHED = 5
"""Models of the cache that a message lists."""


@dataclass(kw_only=True)
class Request:
    """What was typed, and the steps that follow from it, each said as it is taken."""

    command: str
    """The command that was typed, ``new`` or ``tune``."""
    data: str
    folder: Path
    options: Mapping[str, str]
    """Options as they were typed, without ``--``; those left out are missing."""
    overrides: Sequence[str]
    say: Callable[[str], None]
    why: dict[str, str] = field(default_factory=dict)
    """What was said of each decision."""
    to_do: list[str] = field(default_factory=list)
    """What must be done before the study can run."""

    @property
    def again(self) -> str:
        """The command, to which an error adds what is missing."""
        argument = str(self.folder) if "data" in self.options else self.data
        return shlex.join(["sweep", self.command, argument, *command_words(self.options, self.overrides)])

    @property
    def where(self) -> str:
        """Where the data was named."""
        return "--data" if "data" in self.options else "DATA"

    @property
    def sets(self) -> dict[str, Any]:
        """What ``--set`` says, by key."""
        return assignments(self.overrides)

    def tell(self, what: str, text: str) -> None:
        """Say a decision, and keep it."""
        self.why[what] = text
        self.say(printable(f"{what:10}  {text}"))

    def source(self) -> dict[str, Any]:
        """Return ``task.data`` as the study file says it. Raises InputError."""
        path = Path(self.data).expanduser()
        if not path.exists() or path.resolve() == self.folder.resolve():
            text = reference(self.data, self.folder, self.where)
            source: dict[str, Any] = {"path" if text.startswith(PACKAGE) or "://" in text else "name": text}
            if text.startswith(PACKAGE) and "path" in (found := locate(references.package_path(text))):
                source = {**found, "path": text}
        else:
            source = locate(path)
            for split in [name for name in ("path", *SPLITS) if name in source]:
                files = source[split]
                here = [reference(file, self.folder, self.where) for file in _listed(files)]
                source[split] = here if isinstance(files, list) else here[0]
        return {**source, **below("task.data.", self.sets)}

    def recognise(self, source: dict[str, Any]) -> Recognised:
        """Return kind and columns; what ``--kind`` and ``--set task.…`` say wins.

        Where a file has no header, ``source`` gets names for its columns. Raises InputError.
        """
        kind = str(self.options.get("kind") or self.sets.get("task.type") or "")
        if kind:
            check_kind(kind)
            if not shapes(kind):
                self.tell("kind", f"{kind}, which names no columns; the data was not read")
                return Recognised(kind=kind, options={}, taken="")
        rows = self._rows(source)
        names = name_columns(rows["train"], source)
        if names:
            source["columns"] = names
            rows = self._rows(source)
        splits = [f"{words.plural(len(part), 'row')} of {split}" for split, part in rows.items()]
        counts = ", ".join(splits) if len(splits) > 1 else splits[0].removesuffix(" of train")
        files = [name for split in SPLITS for name in _listed(source.get(split))]
        beside = f" ({', '.join(Path(file).name for file in files)})" if len(files) > 1 else ""
        self.tell("data", f"{self.data}: {counts}{beside}")
        for split, count in count_skipped(DataSpec.model_validate(source), self.folder).items():
            self.tell("skipped", f"{words.plural(count, 'line')} of {split} left out, as lines: skip says")
        if names:
            called = f"the columns are called {', '.join(names)}"
            self.tell(
                "header", f"the first line is taken for a row: {called}; if it is a header, --set task.data.header=true"
            )
        task = below("task.", self.sets)
        chosen = {name: task[name] for name in naming(kind) if name in task}
        if renamed := below("columns.", task):
            chosen["columns"] = {**(chosen.get("columns") or {}), **renamed}
        found = recognise(rows["train"], kind=kind, chosen=chosen, again=self.again)
        self._note_gaps(rows, found)
        others = f"; {words.join(list(found.others))} would also fit (--kind)" if found.others else ""
        unused = f"; not used: {', '.join(found.unused)}" if found.unused else ""
        self.tell("kind", f"{found.kind}: {found.taken}{unused}{others}; --kind and --set task.COLUMN=NAME correct it")
        return found

    def _note_gaps(self, rows: Any, found: Recognised) -> None:
        """Add rows without a text or a label, which a run refuses, to what must be done first."""
        label = next((role for role in ("label", "tags") if role in found.needed), None)
        try:
            complete(choose(rows, dict(found.needed), [label or ""]), label=label)
        except InputError as error:
            self.to_do.append(str(error))

    def _rows(self, source: Mapping[str, Any]) -> Any:
        try:
            rows = read_quietly(DataSpec.model_validate(source), self.folder)
        except ValidationError as error:
            found = [(".".join(map(str, ("task.data", *each["loc"]))), each) for each in error.errors()]
            wrong = [f"{path}: {messages.sentence([each], DataSpec)}" for path, each in found]
            raise InputError("\n".join(wrong)) from None
        except InputError as error:
            if "name" in source:
                hint = "; --kind writes the study without reading it" if self.command == "new" else ""
                raise InputError(
                    f"{self.where}: there is no file or folder {self.data} here, and on the hub: {error}{hint}"
                ) from None
            if not isinstance(error, Unreadable):
                raise
            sets = [
                [f"task.data.{option.replace(': ', '=', 1)}" for option in cure.split(" and ")] for cure in error.cures
            ]
            ways = ["".join([f"  {self.again}", *(f" --set {shlex.quote(each)}" for each in cure)]) for cure in sets]
            raise InputError("\n".join([str(error), *(["type:"] if ways else []), *ways])) from None
        if "train" not in rows:
            raise InputError(f"{self.data} has no split train; its splits are {', '.join(rows)}")
        return rows

    def model(self, kind: str) -> str:
        """Return the model as the study file names it. Raises InputError where the default cannot be had."""
        if given := self.options.get("model"):
            found = reference(given, self.folder, "--model")
            self.tell("model", found)
            return found
        template = kind_class(kind).template
        assert template is not None  # every built-in kind has one
        if references.downloaded_model(template.model) is None and (problem := _unreachable(template.model)):
            cached = references.downloaded_models()[:CACHED]
            there = f"; in the cache are {', '.join(cached)}" if cached else ""
            raise InputError(
                f"no model is named, and {template.model}, the default of {kind}, {problem}{there}; name one with --model: a "
                f"local folder, a model on the hub that is in the cache, or package:NAME/sub/folder"
            )
        self.tell("model", f"{template.model}, the default of {kind}; --model names another")
        return template.model


def check_name(folder: Path, option: str = "--name") -> None:
    """Raise InputError where a folder cannot name a study."""
    if not is_name(name := folder.resolve().name):
        raise InputError(f"{option}: {name} cannot name a study; expected {NAMING}, at most {LONGEST_NAME}")


def check_folder(folder: Path, option: str = "--name") -> None:
    """Raise InputError where a study's folder holds something already, or cannot name it."""
    check_name(folder, option)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists already and is not overwritten; choose another name")


def check_kind(kind: str) -> None:
    """Raise InputError for a kind that is not built in."""
    if kind not in KINDS:
        raise InputError(
            f"--kind: there is no kind {kind}; the built-in kinds are {', '.join(KINDS)}{nearest(kind, KINDS)}"
        )


def reference(text: str, folder: Path, option: str) -> str:
    """Return a model or file as the study file in ``folder`` must name it. Raises InputError where it is missing."""
    if text.startswith(PACKAGE) or "://" in text:
        return text
    path = Path(text).expanduser()
    if path.exists():
        relative = os.path.relpath(path.resolve(), folder.resolve())
        return relative if relative.count("..") <= 4 else str(path.resolve())
    if LOCAL.search(text):
        raise InputError(f"{option}: there is no file or folder {text}{_beside(path)}")
    return text


def _beside(path: Path) -> str:
    folder = path.parent
    return nearest(path.name, [other.name for other in folder.iterdir()]) if folder.is_dir() else ""


def data_reference(text: str, folder: Path) -> dict[str, str]:
    """Return ``task.data`` as the study file in ``folder`` must say it. Raises InputError where a file is missing."""
    local = text.startswith(PACKAGE) or "://" in text or Path(text).expanduser().exists()
    return {"path" if local else "name": reference(text, folder, "--data")}


def yaml_text(value: str) -> str:
    """Return a text as YAML reads it back, quoted where it must be."""
    plain = re.fullmatch(r"[A-Za-z_./][A-Za-z0-9_./-]*", value) and value not in ("true", "false", "null")
    return value if plain else json.dumps(value)


def command_words(options: Mapping[str, str], overrides: Sequence[str]) -> list[str]:
    """Return options as one word each, so that two commands can be compared."""
    return [*(f"--{name}={value}" for name, value in options.items()), *(f"--set={each}" for each in overrides)]


def below(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def flow(value: Any) -> str:
    """Return a value as YAML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{yaml_text(str(name))}: {flow(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, float):
        short = words.setting(value)
        return short if float(short) == value and not short.isdigit() else repr(value)
    return yaml_text(value) if isinstance(value, str) else json.dumps(value)


def default_folder(data: str, ending: str) -> Path:
    """Return the folder of a study of this data, in the current one."""
    stem = Path(os.path.normpath(data.removeprefix(PACKAGE))).name.removesuffix(".gz").partition(".")[0]
    plain = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in stem).strip("-") or "data"
    return Path(plain + ending)


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _unreachable(model: str) -> str:
    """Return why a model of the hub cannot be had, in words; empty where it can."""
    if variable := references.offline():
        return f"is not in the cache while {variable} is set"
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns of each retry
    try:
        hf_hub_download(model, "config.json")
    except LocalEntryNotFoundError:
        return "is not in the cache, and the hub does not answer"
    except Exception as error:  # noqa: BLE001  # the network and the hub each fail in their own way
        return f"cannot be downloaded ({type(error).__name__})"
    return ""
