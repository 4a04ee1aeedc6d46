"""Resolves the names in a study, without opening anything: hub ids, local paths, ``*`` patterns, files in pip packages."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

from sweepkit.study.errors import InputError, nearest
from sweepkit.study.files import exists

PACKAGE = "package:"
"""``package:NAME/sub/path`` is a file or folder in a pip package."""


def is_url(text: str) -> bool:
    """Whether ``text`` is a URL (https://, hf://, s3://) rather than a local path."""
    return "://" in text


def package_folder(name: str) -> Path | None:
    """Return the folder of an installed top-level package without importing it, or None."""
    folders = _package_folders(name)
    return folders[0] if folders else None


def package_path(text: str) -> Path:
    """Return the path behind ``package:NAME/sub/path`` without importing the package. Raises InputError."""
    name, _, inside = text.removeprefix(PACKAGE).partition("/")
    folders = _package_folders(name)
    if not folders:
        hint = f"pip install {name.replace('_', '-')}" if name else "write package:NAME/sub/path"
        raise InputError(f"{text}: package {name or '(no name)'} is not installed; {hint}")
    for folder in folders:
        if exists(path := folder / inside):
            return path
    raise InputError(f"{text}: package {name} has no {inside}{_nearest_beside(folders[0] / inside)}")


def find(text: str, home: Path) -> Path:
    """Return the file or folder that ``text`` names, relative to ``home``. Raises InputError where it does not exist."""
    if text.startswith(PACKAGE):
        return package_path(text)
    path = (home / Path(text).expanduser()).resolve()
    if not exists(path):
        raise InputError(f"{text}: there is no file or folder {path}{_nearest_beside(path)}")
    return path


def find_all(texts: list[str], home: Path) -> list[Path]:
    """Return the files behind paths and ``*`` patterns, each pattern's sorted by name; a file that exists is taken literally.

    Raises InputError.
    """
    found: list[Path] = []
    for text in texts:
        path = Path(text).expanduser()
        if any(mark in text for mark in "*?[") and not text.startswith(PACKAGE) and not exists(home / path):
            root = Path(path.anchor) if path.anchor else home
            pattern = path.relative_to(path.anchor) if path.anchor else path
            try:
                matches = sorted(file for file in root.glob(str(pattern)) if file.is_file())
            except OSError:  # a name that no file system takes
                matches = []
            if not matches:
                raise InputError(f"{text}: no file in {root} matches this pattern")
            found += matches
        else:
            found.append(find(text, home))
    return found


def find_model(ref: str, home: Path) -> Path | None:
    """Return the folder of a local or packaged model, None for a hub id.

    Raises InputError for a path that is not a folder with a model.
    """
    if not (looks_local(ref) or (exists(home / ref) and (home / ref).is_dir())):
        return None
    folder = find(ref, home)
    if not folder.is_dir():
        raise InputError(f"{ref}: expected the folder with config.json, got a file")
    if not (folder / "config.json").is_file() and not (folder / "tokenizer_config.json").is_file():
        raise InputError(f"{ref}: there is no config.json in {folder}, so it is not a model")
    return folder


def downloaded_model(hub_id: str) -> Path | None:
    """Return the folder of a hub model in the local cache; None where it was never downloaded."""
    folder = cache("hub", "HF_HUB_CACHE") / f"models--{hub_id.replace('/', '--')}"
    try:
        snapshot = folder / "snapshots" / (folder / "refs" / "main").read_text().strip()
    except OSError:
        return None
    return snapshot if snapshot.is_dir() else None


def downloaded_models() -> list[str]:
    """Return the ids of the hub's models in the local cache."""
    folders = sorted(cache("hub", "HF_HUB_CACHE").glob("models--*"))
    ids = [folder.name.removeprefix("models--").replace("--", "/") for folder in folders]
    return [hub_id for hub_id in ids if downloaded_model(hub_id) is not None]


def downloaded_data(hub_id: str) -> bool:
    """Whether a data set of the hub was loaded before, so that it loads without the network."""
    wanted, folder = re.sub(r"[_/]", "", hub_id).lower(), cache("datasets", "HF_DATASETS_CACHE")
    return folder.is_dir() and any(each.name.replace("_", "").lower() == wanted for each in folder.iterdir())


def downloaded_metric(name: str) -> bool:
    """Whether a metric of `evaluate` was loaded before, so that it loads without the network."""
    folder = cache("modules", "HF_MODULES_CACHE") / "evaluate_modules" / "metrics"
    return any((folder / f"{prefix}{name.replace('/', '--')}").is_dir() for prefix in ("", "evaluate-metric--"))


def cache(name: str, variable: str) -> Path:
    """Return a cache folder of Hugging Face's libraries, which a variable may name."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{caches}/huggingface"
    return Path(os.environ.get(variable) or f"{home}/{name}").expanduser()


def offline(*variables: str) -> str:
    """Return the variable that forbids downloads from the hub, HF_HUB_OFFLINE or one of these; empty where none does."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", *variables)
    return next((name for name in names if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")), "")


def looks_local(ref: str) -> bool:
    """Whether a model's reference can only be a path or a package; hub ids have at most one slash."""
    return ref.startswith((PACKAGE, ".", "/", "~")) or ref.count("/") > 1


def _package_folders(name: str) -> list[Path]:
    if not name.isidentifier():
        return []
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return []
    return [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []


def _nearest_beside(path: Path) -> str:
    """Return the nearest name beside a missing path, as a hint."""
    folder = path.parent
    return nearest(path.name, [other.name for other in folder.iterdir()]) if folder.is_dir() else ""
