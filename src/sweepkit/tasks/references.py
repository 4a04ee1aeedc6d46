"""Where a task's files are: relative paths, files that came with pip packages, patterns. Opens nothing it finds."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from sweepkit.study.errors import InputError, nearest

PACKAGE = "package:"


def is_url(text: str) -> bool:
    """Whether ``text`` names something that is fetched (https://, hf://, s3://) rather than a local path."""
    return "://" in text


def package_path(text: str) -> Path:
    """Return the path behind ``package:NAME/sub/path`` without importing the package. Raises InputError."""
    name, _, inside = text.removeprefix(PACKAGE).partition("/")
    try:
        spec = find_spec(name) if name else None
    except (ImportError, ValueError):
        spec = None
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        hint = f"pip install {name.replace('_', '-')}" if name else "write package:NAME/sub/path"
        raise InputError(f"{text}: there is no installed package {name or '(no name)'}; {hint}")
    for folder in folders:
        if (path := Path(folder) / inside).exists():
            return path
    raise InputError(f"{text}: package {name} has no {inside}{_beside(Path(folders[0]) / inside)}")


def find(text: str, home: Path) -> Path:
    """Return the existing file or folder that ``text`` names, relative to ``home``. Raises InputError."""
    if text.startswith(PACKAGE):
        return package_path(text)
    path = (home / Path(text).expanduser()).resolve()
    if not path.exists():
        raise InputError(f"{text}: there is no file or folder {path}{_beside(path)}")
    return path


def find_all(texts: list[str], home: Path) -> list[Path]:
    """Return the files behind paths and ``*`` patterns, each pattern's sorted by name. Raises InputError."""
    found: list[Path] = []
    for text in texts:
        if any(mark in text for mark in "*?[") and not text.startswith(PACKAGE):
            path = Path(text).expanduser()
            root = Path(path.anchor) if path.anchor else home
            pattern = path.relative_to(path.anchor) if path.anchor else path
            matches = sorted(file for file in root.glob(str(pattern)) if file.is_file())
            if not matches:
                raise InputError(f"{text}: no file in {root} has such a name")
            found += matches
        else:
            found.append(find(text, home))
    return found


def _beside(path: Path) -> str:
    """The nearest name beside a missing path, as a hint."""
    folder = path.parent
    return nearest(path.name, [other.name for other in folder.iterdir()]) if folder.is_dir() else ""
