"""Execute the notebooks, and keep their outputs in small: ``make notebooks``, for some of them ``make notebooks ARGS="02 05"``.

A kept figure is the PNG that Chromium draws of it; the live picture and the tables stay as they are.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from browser import chromium

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "notebooks").glob("*.ipynb"))
STRICT = 'import warnings\n\nwarnings.filterwarnings("error", module=r"(sweepkit|__main__)($|\\.)")\n'
"""Run by every kernel as it starts: warnings are errors where they come from this package or a notebook's own cells."""
PLOTLY = "application/vnd.plotly.v1+json"
DRAW = """
const [figure, size, done] = arguments;
Plotly.toImage({data: figure.data, layout: figure.layout}, {format: "png", ...size}).then(done);
"""
SIZE = {"width": 760, "height": 380}
COLOURS = 64

Notebook = dict[str, Any]


def read(file: Path) -> Notebook:
    found: Notebook = json.loads(file.read_text())
    return found


def write(file: Path, notebook: Notebook) -> None:
    file.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def code(notebook: Notebook) -> list[Notebook]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def copy(clone: Path) -> Path:
    """Copy what the notebooks need into a folder as a clone has it; returns the copy of ``notebooks/``."""
    (clone / "pyproject.toml").touch()
    for part in ("notebooks", "studies"):
        shutil.copytree(ROOT / part, clone / part)
    startup = clone / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-strict.py").write_text(STRICT)
    return clone / "notebooks"


def execute(files: Iterable[Path]) -> dict[str, subprocess.CompletedProcess[str]]:
    """Execute notebooks of a copy in place, two at a time, with the command that people type; by their names."""

    def run(file: Path) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "IPYTHONDIR": str(file.parents[1] / "ipython")}
        command = ["jupyter", "execute", "--inplace", str(file)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)

    files = list(files)
    with ThreadPoolExecutor(2) as pool:
        return {file.stem: done for file, done in zip(files, pool.map(run, files), strict=True)}


def small(driver: Any, output: dict[str, Any], clone: Path) -> dict[str, Any]:
    """Return an output as it is kept: Plotly's figures drawn, paths from the clone on."""
    data = output.get("data", {})
    if PLOTLY in data:
        url = driver.execute_async_script(DRAW, data[PLOTLY], SIZE)
        return {**output, "data": {"image/png": _fewer_colours(base64.b64decode(url.partition(",")[2]))}}
    if "image/png" in data:
        data["image/png"] = _fewer_colours(base64.b64decode(data["image/png"]))
    kept: dict[str, Any] = json.loads(json.dumps(output).replace(f"{clone}/", "").replace(str(clone), "."))
    return kept


def _fewer_colours(png: bytes) -> str:
    from io import BytesIO

    from PIL import Image

    out = BytesIO()
    Image.open(BytesIO(png)).convert("RGB").quantize(COLOURS).save(out, "png", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def main() -> None:
    from plotly.offline import get_plotlyjs

    chosen = [file for file in FILES if not sys.argv[1:] or file.stem.startswith(tuple(sys.argv[1:]))]
    with tempfile.TemporaryDirectory() as name, chromium(Path(name) / "profile") as driver:
        clone = Path(name, "clone")
        clone.mkdir()
        folder = copy(clone)
        done = execute(folder / file.name for file in chosen)
        page = Path(name, "page.html")
        page.write_text(f"<!doctype html><meta charset=utf-8><script>{get_plotlyjs()}</script>")
        driver.get(page.as_uri())
        for file in chosen:
            if done[file.stem].returncode:
                raise SystemExit(f"{file.name} failed:\n{done[file.stem].stderr}")
            notebook = read(folder / file.name)
            for cell in code(notebook):
                cell["metadata"].pop("execution", None)
                cell["outputs"] = [small(driver, output, clone) for output in cell["outputs"]]
            notebook["metadata"] = read(file)["metadata"]
            write(file, notebook)
            print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
