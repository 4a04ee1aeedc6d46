"""Imports a Python file of a study as a module that any process can import again by its name alone.

The name holds the file's path (``sweepkit.study.modules.<path in hexadecimal>``), and importing this module installs its
finder. Data loader workers, spawned processes and pickles therefore need nothing else.
"""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from sweepkit.study.errors import FOREIGN, InputError
from sweepkit.study.files import describe, first_line

__path__: list[str] = []  # makes this module a package, for the finder below


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        """Run the file with its folder first on the path, as Python does for a script.

        A module of the same name as one in the folder, imported from another folder before (by another study's task or a
        notebook), is set aside meanwhile: the file gets its own.
        """
        folder = Path(self.path).parent
        sys.path[:] = [str(folder), *(other for other in sys.path if other != str(folder))]
        aside = _namesakes(folder)
        for name in aside:
            del sys.modules[name]
        try:
            super().exec_module(module)
        finally:
            sys.modules.update(aside)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parent, _, name = fullname.rpartition(".")
        if parent != __name__:
            return None
        file = os.fsdecode(bytes.fromhex(name.removeprefix("x")))
        return spec_from_file_location(fullname, file, loader=_Loader(fullname, file))


if not any(type(finder).__qualname__ == _Finder.__qualname__ for finder in sys.meta_path):
    sys.meta_path.append(_Finder())


def _namesakes(folder: Path) -> dict[str, ModuleType]:
    """Return the imported modules that are named like one in the folder but lie elsewhere, installed ones aside."""
    own = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    installed = {Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")}
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in own - {"__main__"}}
    others = {
        name
        for name, file in files.items()
        if file and not {folder, *installed} & {Path(file).resolve().parent, *Path(file).resolve().parents}
    }
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in others}


def import_file(file: Path) -> ModuleType:
    """Import a Python file, once per process. Raises InputError for whatever the file raises."""
    file = file.resolve()
    name = f"{__name__}.x{os.fsencode(file).hex()}"
    try:
        return importlib.import_module(name)
    except FOREIGN as error:
        line = next((f.lineno for f in reversed(_frames(error)) if f.filename == str(file)), None)
        where = f"{file}:{line}" if line else str(file)
        raise InputError(f"{where}: cannot be imported: {first_line(describe(error))}") from error


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    if isinstance(error, SyntaxError) and error.filename:
        return [traceback.FrameSummary(error.filename, error.lineno, "")]
    return list(traceback.extract_tb(error.__traceback__))


def own_files(ours: str = "") -> dict[str, list[int]]:
    """Return the loaded source files that no installed version stands for → modification time (ns) and size.

    Of sweepkit, only the files of the package ``ours`` count, and those of a study that it imported.
    """
    library = sysconfig.get_paths()["stdlib"]
    found: dict[str, list[int]] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or "-packages" in file or file.startswith(library):
            continue
        if name.startswith("sweepkit") and not name.startswith((f"sweepkit.{ours}", f"{__name__}.")):
            continue
        try:
            stat = Path(file).stat()
        except OSError:
            continue
        found[file] = [stat.st_mtime_ns, stat.st_size]
    return found
