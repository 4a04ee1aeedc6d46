"""The pictures of the README, made from a real run of the quickstart: ``make pictures``.

The live view is captured while the study runs, and drawn by a browser, as are the report and MLflow's compare view.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
import time
from io import StringIO
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console, Group, RenderableType
from rich.terminal_theme import MONOKAI
from rich.text import Text

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser import chromium
from sweepkit import report
from sweepkit.check.study_file import load_study
from sweepkit.driver.run import run_checked
from sweepkit.report import terminal
from sweepkit.report.progress import Picture

ROOT = Path(__file__).parents[2]
OUT = ROOT / "studies" / "pictures"
COLUMNS, WIDTH, HEIGHT = 108, 1060, 440
SECONDS = 1.0
"""Between two looks at the live view."""
FRAMES = 90
"""At most so many are kept, a tenth of a second each."""


class Recorder(Picture):
    """A live picture that is drawn nowhere but kept."""

    def __init__(self) -> None:
        super().__init__(Console(file=StringIO(), width=COLUMNS, force_terminal=True))
        self.notes: list[str] = []
        self.frames: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        self._thread.name = "look"
        while not self._over.wait(SECONDS):
            self.keep(self._render())

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def on_note(self, text: str) -> None:
        self.notes.append(text.replace(f"{ROOT}/", ""))

    def keep(self, *parts: RenderableType) -> None:
        """Keep a frame, unless it is the last one again."""
        console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
        typed = Text("$ sweep run studies/spam/study.yaml", style="bold")
        console.print(Group(typed, *(Text(note, style="dim") for note in self.notes[-4:]), Text(), *parts))
        page = console.export_html(theme=MONOKAI, inline_styles=True)
        if not self.frames or page != self.frames[-1]:
            self.frames.append(page)


def size(driver: Any, width: int, height: int) -> None:
    """Set the size of the page; a window's is larger."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def shot(driver: Any, where: str, path: Path, *, ready: float = 0.0) -> Image.Image:
    driver.get(where)
    time.sleep(ready)
    driver.save_screenshot(str(path))
    return Image.open(path).convert("RGB")


def main() -> None:
    OUT.mkdir(exist_ok=True)
    checked = load_study(ROOT / "studies" / "spam" / "study.yaml")
    view = Recorder()
    view.begin()
    outcome = run_checked(checked, fresh=True, watch=view)
    view.end()
    view.keep(terminal.summary(outcome, checked.study))
    draw(view.frames, report.write(checked.study))


def draw(frames: list[str], page: Path) -> None:
    with tempfile.TemporaryDirectory() as name, chromium(Path(name) / "profile") as driver:
        folder = Path(name)
        pictures = []
        size(driver, WIDTH, HEIGHT)
        *earlier, last = frames
        for number, frame in enumerate([*earlier[:: 1 + len(earlier) // FRAMES], last]):
            file = folder / f"{number}.html"
            file.write_text(frame)
            pictures.append(shot(driver, file.as_uri(), folder / "frame.png").quantize(32))
        durations = [100] * (len(pictures) - 1) + [6000]
        pictures[0].save(OUT / "run.gif", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
        size(driver, 1100, 860)
        shot(driver, page.as_uri(), folder / "report.png", ready=2).quantize(64).save(OUT / "report.png", optimize=True)
        command = [sys.executable, "-m", "sweepkit", "ui", "spam"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as serving:
            assert serving.stdout is not None
            link = next(found[0] for line in serving.stdout if (found := re.search(r"http://\S+compareRuns\S*", line)))
            size(driver, 1900, 960)
            picture = shot(driver, link, folder / "mlflow.png", ready=15)
            picture.crop((0, 0, 1412, picture.height)).quantize(64).save(OUT / "mlflow.png", optimize=True)
            serving.terminate()


if __name__ == "__main__":
    main()
