"""Which study this is: the study as last run, which of its keys may change between runs, and the archive."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock
from pydantic import ConfigDict, ValidationError

from sweepkit.study.damage import read_json
from sweepkit.study.errors import DamagedFile, InputError, StudyChanged, StudyLocked
from sweepkit.study.files import write_whole
from sweepkit.study.locks import lock_owners
from sweepkit.study.paths import Place
from sweepkit.study.secrets import HIDDEN, hide, reveal
from sweepkit.study.study import OPEN, StudyData

FREE = {
    *("budget", "backend", "tracking", "checkpoints", "retries", "confirm", "enqueue", "start_from"),
    *("question", "sweep", "trust_remote_code"),
}
"""Keys of the study file that may change between two runs of one study. The space may only become wider."""
PASSWORDS = {
    **dict.fromkeys(("postgresql", "postgres"), "PGPASSWORD"),
    **dict.fromkeys(("mysql", "mariadb"), "MYSQL_PWD"),
    **dict.fromkeys(("http", "https"), "MLFLOW_TRACKING_PASSWORD"),
}
"""Scheme of a URL → the variable from which its own clients take the password."""
_LOST = (
    "it says which study its trials belong to: put it back from a copy, or run the study file with --fresh, which archives "
    "these trials"
)
_MISSING = object()


@dataclass(frozen=True)
class Identity:
    """A study as last run; ``study`` is its plain data, without secrets."""

    id: str
    created: datetime
    study: Mapping[str, Any]
    home: str = ""
    """Folder of the study file, relative to the project root, so that a study can be run by its name."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    @classmethod
    def load(cls, place: Place) -> Identity | None:
        """Return the contents of ``study.json``; None without one. Raises DamagedFile."""
        found: Identity | None = read_json(place.study_json, cls, _LOST)
        return found

    @classmethod
    def of_trials(cls, place: Place) -> Identity | None:
        """Return the same, but raise DamagedFile where there are trials without it; None if the study never ran."""
        found = cls.load(place)
        if found is None and place.next_number():
            raise DamagedFile(place.study_json, "is missing beside the logs of its trials", _LOST)
        return found

    def save(self, place: Place) -> None:
        """Write ``study.json`` atomically."""
        place.folder.mkdir(parents=True, exist_ok=True)
        write_whole(place.study_json, json.dumps(self.plain(), indent=1))

    def plain(self) -> dict[str, Any]:
        """Return the content of ``study.json``."""
        return {**asdict(self), "created": self.created.isoformat()}


@dataclass(frozen=True)
class Change:
    """One key that differs; ``allowed`` tells whether the study may be resumed with it."""

    path: str
    old: Any
    new: Any
    allowed: bool

    def __str__(self) -> str:
        return f"{self.path}: {_text(self.old)} → {_text(self.new)}"


def refuse_changed(place: Place, study: StudyData) -> Identity | None:
    """Return the study's identity as last run; None if it never ran.

    Raises StudyChanged if the study differs from the one its trials were run with in a key that may not change.
    """
    old = Identity.of_trials(place)
    refused = [c for c in changes(_completed(old.study), plain_study(study)) if not c.allowed] if old else []
    if refused:
        listed = "\n".join(f"  {change}" for change in refused)
        raise StudyChanged(
            f"study {study.name} changed since its trials were run:\n{listed}\n"
            "run it with --fresh (the earlier trials are archived, not deleted) or give it a new name"
        )
    return old


def identify(place: Place, study: StudyData) -> Identity:
    """Record the study as it is now and return its identity, created on the first run.

    The caller holds the study's lock. Raises StudyChanged like :func:`refuse_changed`.
    """
    with FileLock(place.identity_lock):
        old, plain, home = refuse_changed(place, study), recorded_study(study), os.path.relpath(place.home, place.root)
        id_ = old.id if old else uuid.uuid4().hex[:12]
        created = old.created if old else datetime.now().replace(microsecond=0)
        identity = Identity(id_, created, plain, home)
        if old != identity:
            identity.save(place)
        return identity


def plain_study(study: StudyData) -> dict[str, Any]:
    """Return the study as plain JSON data, without secrets."""
    return _hidden(study.model_dump(mode="json", by_alias=True))


def recorded_study(study: StudyData) -> dict[str, Any]:
    """Return what an identity holds of the study."""
    plain = plain_study(study)
    if "uri" not in study.tracking.model_fields_set:
        del plain["tracking"]["uri"]  # MLFLOW_TRACKING_URI decides, also where the study is found by its name
    return plain


def _completed(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded study with the keys that the version which ran it did not have, at their defaults."""
    plain = _hidden(recorded)  # earlier versions recorded secrets
    try:
        return plain_study(StudyData.model_validate_json(json.dumps(plain)))
    except ValidationError:
        return plain


def _hidden(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {**plain, **hide({key: plain[key] for key in OPEN if key in plain})}


def with_secrets(plain: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded study with its secrets, from the same study as ``written`` now, and passwords from the environment."""
    found: dict[str, Any] = reveal(plain, written)
    for section, key in ((found, "storage"), (found.get("tracking", {}), "uri")):
        if key in section:
            section[key] = _with_password(section[key])
    return found


def _with_password(url: str) -> str:
    password = os.environ.get(_variable(url))
    return url.replace(f":{HIDDEN}@", f":{quote(password, safe='')}@") if password else url


def _variable(url: str) -> str:
    return PASSWORDS.get(url.partition(":")[0].partition("+")[0], "")


def missing_secret(path: str, url: str = "") -> InputError:
    """Return the error for a secret that a recorded study lacks; ``url`` is the value of its key, where that is a URL."""
    hint = f"set {variable}, or " if (variable := _variable(url)) else ""
    found = f" ({url})" if url else ""
    return InputError(
        f"{path}: a secret is not recorded with the study{found}; {hint}give the study's file instead of its name"
    )


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return the differences between two studies in plain data, key by key."""
    found: list[Change] = []
    for key in {**old, **new}:
        before, after = old.get(key, _MISSING), new.get(key, _MISSING)
        spaces = key == "space" and isinstance(before, Mapping) and isinstance(after, Mapping)
        if spaces and before.keys() == after.keys():
            for name in before:
                allowed = wider(before[name], after[name], embedded=new.get("storage") == "journal")
                found += _differences(before[name], after[name], f"space.{name}", allowed)
        else:
            found += _differences(before, after, key, key in FREE)
    return found


def wider(old: Any, new: Any, *, embedded: bool) -> bool:
    """Return whether every value of the old parameter (plain data) is one of the new one; the role may change.

    In a database Optuna fixes the choices of a parameter, so only the ``embedded`` storage allows more choices.
    """
    if not isinstance(old, Mapping) or not isinstance(new, Mapping) or old.keys() != new.keys():
        return _same(old, new)
    if "choices" in old:
        return _more_choices(old["choices"], new["choices"], embedded)
    return _wider_range(old, new) if "low" in old else _same(old, new)


def _same(old: Any, new: Any) -> bool:
    return bool(type(old) is type(new) and old == new)  # 1, 1.0 and True are equal but not the same


def _more_choices(
    old: Sequence[Any] | Mapping[str, Any], new: Sequence[Any] | Mapping[str, Any], embedded: bool
) -> bool:
    if not embedded and len(old) != len(new):
        return False
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return type(old) is type(new) and all(any(_same(value, other) for other in new) for value in old)
    return all(
        branch in new
        and old[branch].keys() == new[branch].keys()
        and all(wider(old[branch][name], new[branch][name], embedded=embedded) for name in old[branch])
        for branch in old
    )


def _wider_range(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    if not all(_same(old[key], new[key]) for key in ("step", "log")) or type(old["low"]) is not type(new["low"]):
        return False
    steps = (old["low"] - new["low"]) / old["step"] if old["step"] and not old["log"] else 0.0
    aligned = math.isclose(steps, round(steps), abs_tol=1e-8)
    return bool(aligned and new["low"] <= old["low"] and new["high"] >= old["high"])


def _differences(old: Any, new: Any, path: str, allowed: bool) -> Iterator[Change]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            yield from _differences(old.get(key, _MISSING), new.get(key, _MISSING), f"{path}.{key}", allowed)
    elif not _same(reveal(old, new), new):
        yield Change(path, old, new, allowed)


def _text(value: Any) -> str:
    return "(nothing)" if value is _MISSING else value if isinstance(value, str) else json.dumps(value)


def archive(place: Place) -> Path | None:
    """Move the study's folder into the archive and return its new path; None if there was none.

    The caller holds the study's lock and keeps it: the lock file is hard-linked into the new, empty folder. So is the pickled
    task of a study made in Python, which the next run needs. Raises StudyLocked while several drivers run the study.
    """
    if len(owners := lock_owners(place)) > 1:
        raise StudyLocked(f"study {place.name} is run by {len(owners)} processes; stop the others before --fresh")
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
