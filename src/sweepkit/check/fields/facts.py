"""Facts about classes: asked of a child process that imports them, and kept in the user's cache until something changes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweepkit.study.errors import InputError
from sweepkit.study.files import last_line

DEADLINE_SECONDS = 300.0
"""How long importing may take; on a network file system, torch takes minutes."""
SILENT_SECONDS = 2.0
"""How long it may take before the user is told what takes long."""

Question = tuple[Any, ...]
"""A kind of question (see :mod:`sweepkit.check.fields.child`) and its arguments, as JSON-compatible data."""


def ask(*questions: Question) -> list[Any]:
    """Return the facts asked for: those of the cache that are still true, the others from a child process.

    An answer that is an InputError stands for a class that cannot be imported; it is not remembered.
    """
    environment = _environment()
    found = {question: _remembered(question, environment) for question in questions}
    if missing := [question for question, facts in found.items() if facts is _MISSING]:
        found |= zip(missing, _from_child(missing), strict=True)
    return [found[question] for question in questions]


def recall(question: Question) -> Any:
    """Return the facts that :func:`remember` kept; None where there are none, or something changed."""
    facts = _remembered(question, _environment())
    return None if facts is _MISSING else facts


def remember(question: Question, facts: Any, files: Mapping[str, list[int]], *, since: int) -> None:
    """Keep facts until a file (→ modification time and size) or an installed package changes.

    Not where a file was written after ``since`` (ns): what it held when it was read is not known.
    """
    if all(stamp[0] < since for stamp in files.values()):
        _remember(question, {"environment": _environment(), "files": files, "facts": facts})


_MISSING = object()


def _package_folders() -> list[str]:
    """Return the folders that packages are installed in, without those that a package adds to the path (ray does)."""
    return sorted({folder for folder in sys.path if folder.endswith("-packages")})


def _environment() -> str:
    """Return a digest of the interpreter and the versions of the installed packages."""
    installed = {each.name for folder in _package_folders() for each in Path(folder).glob("*-info")}
    reader = [
        Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("child.py", "describe.py", "tasks.py")
    ]
    return _digest(sys.version, reader, sorted(installed))


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _folders(*, make: bool = False) -> Iterator[Path]:
    """Return the folders for what is remembered that are this user's, and that nobody else may write to."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    for where in (f"{cache}/sweepkit", f"{tempfile.gettempdir()}/sweepkit-{os.getuid()}"):
        try:
            folder = Path(where).expanduser()
            if make:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.stat()
            if {folder.lstat().st_uid, found.st_uid} != {os.getuid()} or found.st_mode & 0o022:
                continue
        except (OSError, RuntimeError):
            continue
        yield folder


def _name(question: Question) -> str:
    return f"{question[0]}-{_digest(sys.prefix, _package_folders(), question)}.json"


def _remembered(question: Question, environment: str) -> Any:
    for folder in _folders():
        file = folder / _name(question)
        try:
            entry = json.loads(file.read_bytes())
            if entry["environment"] == environment and all(_stamp(path) == at for path, at in entry["files"].items()):
                return entry["facts"]
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
    return _MISSING


def _stamp(path: str) -> list[int]:
    stat = Path(path).stat()
    return [stat.st_mtime_ns, stat.st_size]


def _remember(question: Question, entry: dict[str, Any]) -> None:
    """Write the facts to the first folder that can be written."""
    name = _name(question)
    for folder in _folders(make=True):
        try:
            draft = folder / f"{name}.{os.getpid()}"
            draft.write_text(json.dumps(entry), encoding="utf-8")
            os.replace(draft, folder / name)
        except OSError:
            continue
        return


def _from_child(questions: Sequence[Question]) -> list[Any]:
    began = time.time_ns()
    answers = _run_child(questions)
    if isinstance(answers, InputError):
        return [answers] * len(questions)
    for question, answer in zip(questions, answers, strict=True):
        if "facts" in answer:
            remember(question, answer["facts"], answer["files"], since=began)
    return [InputError(answer["error"]) if "error" in answer else answer["facts"] for answer in answers]


_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from sweepkit.check.fields.child import main; main()"
)


def _run_child(questions: Sequence[Question]) -> Any:
    """Return the child's answer, or an InputError where it did not give one."""
    command = [sys.executable, "-B", "-c", _PROGRAM, json.dumps(sys.path), str(os.getpid())]
    said, (reading, writing) = bytearray(), os.pipe()
    listener = threading.Thread(target=_keep_the_end, args=(reading, said), daemon=True)
    listener.start()
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=writing, start_new_session=True) as process:
        os.close(writing)
        try:
            return json.loads(_communicate(process, questions))
        except subprocess.TimeoutExpired:
            return InputError(f"importing it did not end within {DEADLINE_SECONDS:g} seconds")
        except ValueError:
            listener.join(1)
            code, last = process.returncode, last_line(said)
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            return InputError(f"importing it ended the process ({how})" + (f": {last}" if last else ""))
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # whatever the imported code started
            except OSError:
                pass


def _keep_the_end(pipe: int, said: bytearray) -> None:
    """Read a pipe to its end, and keep the last of it: what is imported may print without end."""
    with open(pipe, "rb", buffering=0) as file:
        while data := file.read(1 << 16):
            said += data
            del said[: -(1 << 16)]


def _communicate(process: subprocess.Popen[bytes], questions: Sequence[Question]) -> bytes:
    """Return the child's standard output; in a terminal, say after a moment what takes so long."""
    try:
        return process.communicate(json.dumps(questions).encode(), timeout=SILENT_SECONDS)[0]
    except subprocess.TimeoutExpired:
        names = ", ".join(str(question[1]) if len(question) > 1 else question[0] for question in questions)
        if os.isatty(2):  # a notebook's sys.stderr says that it were one
            sys.stderr.write(f"importing {names} to see what they accept; this is remembered until they change …\n")
        return process.communicate(timeout=DEADLINE_SECONDS - SILENT_SECONDS)[0]
