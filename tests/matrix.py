"""Runs the unit part on each Python found with the newest versions, and on the oldest one also with the lowest that
``pyproject.toml`` allows: ``make test-matrix [ARGS='pytest options']``.

The Pythons are those of the classifiers, as far as they are on the PATH. Each environment lies in ``.venv-matrix/``. uv knows
nothing of pip's configuration: ``UV_FIND_LINKS``, ``UV_INDEX_URL`` and the like say where packages come from, and
``UV_CONSTRAINT`` names a file that keeps, for example, torch at a build for CPUs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv-matrix"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS, STUDIES = os.environ["EXTRAS"], os.environ["STUDIES"].split()
SHOWN = ("torch", "transformers", "optuna", "mlflow", "ray", "datasets")


def uv(*words: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return subprocess.run([program or "uv", *words], text=True, stdout=subprocess.PIPE, check=False, cwd=ROOT)


def pythons() -> Iterator[str]:
    """Yield the interpreters of the versions that the classifiers name, oldest first."""
    for classifier in PROJECT["classifiers"]:
        if version := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", classifier):
            found = uv("python", "find", "--no-project", "--system", "--no-python-downloads", version[1])
            if found.returncode:
                print(f"Python {version[1]}: not found, left out")
            else:
                yield found.stdout.strip()


def installed(home: Path) -> dict[str, Version]:
    (packages,) = home.glob("lib/python*/site-packages")
    return {canonicalize_name(each.name): Version(each.version) for each in distributions(path=[str(packages)])}


def above_their_floor(versions: dict[str, Version]) -> list[str]:
    """Name the requirements of which a higher version than the lowest allowed was tested, as another package needs it."""
    wanted = [
        *PROJECT["dependencies"],
        *(each for group in PROJECT["optional-dependencies"].values() for each in group),
    ]
    floors = {
        canonicalize_name(each.name): Version(bound.version)
        for each in map(Requirement, wanted)
        for bound in each.specifier
        if bound.operator == ">="
    }
    return [f"{name} {versions[name]} (not {floor})" for name, floor in floors.items() if versions[name] > floor]


def tried(python: str, resolution: str) -> str | None:
    """Run the unit part in an environment of its own; return what it said last, or None where that could not be made."""
    name = subprocess.check_output([python, "-V"], text=True).strip()
    home = FOLDER / f"{name.split()[1].rpartition('.')[0]}-{resolution}"
    # Compiled, as by pip: some tests measure how long a fresh interpreter takes.
    install = ("pip", "install", "-q", "--compile-bytecode", "--python", str(home))
    made = [
        uv("venv", "-q", "--allow-existing", "--no-project", "--python", python, str(home)),
        uv(*install, "--upgrade", "--resolution", resolution, "-e", f".[{EXTRAS}]", "--group", "dev"),
        uv(*install, "--no-deps", "-c", "constraints.txt", *STUDIES),
    ]
    if any(step.returncode for step in made):
        return None
    versions = installed(home)
    print(f"== {name}, {resolution}:", ", ".join(f"{each} {versions[each]}" for each in SHOWN))
    if resolution == "lowest-direct" and (above := above_their_floor(versions)):
        print("   above the lowest allowed, as others need it:", ", ".join(above))
    command = [str(home / "bin" / "python"), "-m", "pytest", "-m", "not slow and not real", "-q", *sys.argv[1:]]
    run = subprocess.Popen([*command, "-p", "no:cacheprovider"], cwd=ROOT, text=True, stdout=subprocess.PIPE)
    last = ""
    for line in run.stdout or ():
        print(line, end="", flush=True)
        last = line.strip() or last
    return f"{'passed' if run.wait() == 0 else 'FAILED'}: {last}"


def main() -> None:
    found = list(pythons())
    results = {
        f"{python}, {resolution}": tried(python, resolution)
        for oldest, python in zip([True] + [False] * len(found), found, strict=False)
        for resolution in (("lowest-direct", "highest") if oldest else ("highest",))
    }
    print("\n".join(f"{which}: {result or 'cannot be installed'}" for which, result in results.items()))
    sys.exit(not results or any(result is None or not result.startswith("passed") for result in results.values()))


if __name__ == "__main__":
    main()
