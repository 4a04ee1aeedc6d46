"""Whose study this is: the study as it was last run, what may change, and the archive. Knows no Optuna."""

from __future__ import annotations

import json
import math
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from sweepkit.study.errors import StudyChanged, StudyLocked
from sweepkit.study.files import write_whole
from sweepkit.study.locks import lock_owners
from sweepkit.study.paths import Place
from sweepkit.study.study import StudyData

FREE = frozenset(
    {
        "budget",
        "backend",
        "tracking",
        "checkpoints",
        "question",
        "enqueue",
        "retries",
        "confirm",
        "sweep",
        "trust_remote_code",
    }
)
"""Keys of the study file that may change between two runs of one study. A space may become wider."""


def scrubbed(url: str) -> str:
    """Return the URL without its password.

    >>> scrubbed("postgresql://ann:secret@host/db")
    'postgresql://ann:***@host/db'
    """
    return re.sub(r"(://[^/@:]*):.*@", r"\1:***@", url)


@dataclass(frozen=True)
class Identity:
    """A study as it was last run; ``study`` is its plain data, without passwords."""

    id: str
    created: str
    study: Mapping[str, Any]
    home: str = ""
    """Folder of the study file, relative to the project root, so that the study can be run by its name."""

    @classmethod
    def load(cls, place: Place) -> Identity | None:
        """Return what ``study.json`` holds, or None where the study never ran."""
        if not place.study_json.exists():
            return None
        return cls(**json.loads(place.study_json.read_text()))

    def save(self, place: Place) -> None:
        """Write ``study.json``, whole or not at all."""
        place.folder.mkdir(parents=True, exist_ok=True)
        write_whole(place.study_json, json.dumps(asdict(self), indent=1))


def refuse_changed(place: Place, study: StudyData) -> Identity | None:
    """Return the study's identity as it was last run, or None where it never ran.

    Raises StudyChanged when trials were run with a study that differs in a way that matters.
    """
    old = Identity.load(place)
    refused = [change for change in changes(old.study, plain_study(study)) if not change.allowed] if old else []
    if refused:
        listed = "\n".join(f"  {change}" for change in refused)
        raise StudyChanged(
            f"study {study.name} changed since its trials were run:\n{listed}\n"
            "run it with --fresh (the earlier trials are archived, not deleted) or give it a new name"
        )
    return old


def identify(place: Place, study: StudyData) -> Identity:
    """Return the study's identity, made now if it has none, after recording the study as it is.

    The caller holds the study's lock. Raises StudyChanged when trials were run with a study that differs in a way that
    matters.
    """
    with FileLock(place.identity_lock):
        return _identify(place, study)


def _identify(place: Place, study: StudyData) -> Identity:
    old, plain, home = refuse_changed(place, study), plain_study(study), os.path.relpath(place.home, place.root)
    if old is None:
        identity = Identity(uuid.uuid4().hex[:12], datetime.now().isoformat(timespec="seconds"), plain, home)
    else:
        identity = Identity(old.id, old.created, plain, home)
    if old != identity:
        identity.save(place)
    return identity


def plain_study(study: StudyData) -> dict[str, Any]:
    """Return the study as plain JSON data, without passwords."""
    plain: dict[str, Any] = study.model_dump(mode="json", by_alias=True)
    plain["storage"] = scrubbed(plain["storage"])
    plain["tracking"]["uri"] = scrubbed(plain["tracking"]["uri"])
    return plain


@dataclass(frozen=True)
class Change:
    """One key that differs; ``allowed`` says whether the study may go on with it."""

    path: str
    old: Any
    new: Any
    allowed: bool

    def __str__(self) -> str:
        return f"{self.path}: {_shown(self.old)} → {_shown(self.new)}"


MISSING = object()


def _shown(value: Any) -> str:
    return "(nothing)" if value is MISSING else value if isinstance(value, str) else json.dumps(value)


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return what differs between two studies given as plain data, key by key."""
    embedded = new.get("storage") == "journal"
    found: list[Change] = []
    for key in {**old, **new}:
        before, after = old.get(key, MISSING), new.get(key, MISSING)
        if (
            key == "space"
            and isinstance(before, Mapping)
            and isinstance(after, Mapping)
            and before.keys() == after.keys()
        ):
            for name in before:
                allowed = wider(before[name], after[name], embedded)
                found += [
                    Change(change.path, change.old, change.new, allowed)
                    for change in _differences(before[name], after[name], f"space.{name}", False)
                ]
        else:
            found += _differences(before, after, key, key in FREE)
    return found


def _differences(old: Any, new: Any, path: str, allowed: bool) -> Iterator[Change]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            yield from _differences(old.get(key, MISSING), new.get(key, MISSING), f"{path}.{key}", allowed)
    elif old is MISSING or new is MISSING or type(old) is not type(new) or old != new:
        yield Change(path, old, new, allowed)


def wider(old: Any, new: Any, embedded: bool) -> bool:
    """Whether every value of the old parameter (plain data) is one of the new; the role may change.

    Optuna fixes the choices of a parameter in a database, so more choices need the embedded storage (``embedded``).
    """
    if not isinstance(old, Mapping) or not isinstance(new, Mapping) or old.keys() != new.keys():
        return bool(old == new and type(old) is type(new))
    if "choices" in old:
        before, after = old["choices"], new["choices"]
        if type(before) is not type(after) or (not embedded and len(before) != len(after)):
            return False
        if isinstance(before, Mapping):
            return all(
                branch in after
                and before[branch].keys() == after[branch].keys()
                and all(wider(before[branch][name], after[branch][name], embedded) for name in before[branch])
                for branch in before
            )
        return all(any(value == other and type(value) is type(other) for other in after) for value in before)
    if "low" in old:
        if (old["step"], old["log"], type(old["low"])) != (new["step"], new["log"], type(new["low"])):
            return False
        steps = (old["low"] - new["low"]) / old["step"] if old["step"] and not old["log"] else 0.0
        aligned = math.isclose(steps, round(steps), abs_tol=1e-8)
        return bool(aligned and new["low"] <= old["low"] and new["high"] >= old["high"])
    return bool(old == new)


def archive(place: Place) -> Path | None:
    """Move the study's folder into the archive and return where it is now; None when there was none.

    The caller holds the study's lock and goes on holding it: the same lock file is linked into the new, empty folder. So
    is the task of a study made in Python, which belongs to the study and not to its trials.
    Raises StudyLocked while other drivers share the study.
    """
    if len(owners := lock_owners(place)) > 1:
        raise StudyLocked(f"study {place.name} is run by {len(owners)} processes; stop the others, then start it over")
    if not place.folder.exists():
        return None
    place.archive.mkdir(parents=True, exist_ok=True)
    stamp = f"{place.name}-{datetime.now():%Y%m%d-%H%M%S}"
    numbered = (place.archive / (f"{stamp}-{n}" if n else stamp) for n in range(1000))
    target = next(path for path in numbered if not path.exists())
    place.folder.rename(target)
    place.folder.mkdir()
    for kept in (*target.glob(f"{place.lock.name}*"), *target.glob(place.task.name)):
        os.link(kept, place.folder / kept.name)
    return target
