"""Goal 8: how long a person waits for the command line, and that it imports nothing heavy meanwhile."""

from __future__ import annotations

import time
from pathlib import Path

from measure import ROOT, Line, Size, in_turn, project, python

HEAVY = ("torch", "transformers", "ray", "mlflow")


def run(size: Size) -> list[Line]:
    """Time three commands in fresh processes; quick: a study of 200 trials instead of 1,000."""
    from reopening import finished_study

    trials = size.pick(1000, 200)
    with project() as folder:
        finished_study(folder, trials)
        check = str(ROOT / "studies" / "spam" / "study.yaml")
        commands = {"help": ["--help"], "check": ["check", check], "show": ["show", "noop"]}

        def seconds(name: str) -> float:
            began = time.perf_counter()
            python("-m", "sweepkit", *commands[name], cwd=folder)
            return time.perf_counter() - began

        for name in commands:
            seconds(name)  # bytecode and the disk's cache
        found = in_turn(
            max(3, size.repeats),
            help=lambda: seconds("help"),
            check=lambda: seconds("check"),
            show=lambda: seconds("show"),
        )
        heavy = sum(len(imported(words, folder)) for words in commands.values())
    return [
        Line.of("8", "sweep --help", found["help"], "s", at_most=0.4),
        Line.of("8", "sweep check", found["check"], "s", at_most=1.0, detail="studies/spam"),
        Line.of("8", "sweep show", found["show"], "s", at_most=1.5, detail=f"{trials} trials"),
        Line("8", "heavy imports of the three", heavy, "", at_most=0, detail=", ".join(HEAVY)),
    ]


def imported(words: list[str], folder: Path) -> list[str]:
    """Return the heavy packages a command has imported at its end."""
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: sys.stdout.write('\\nIMPORTED ' + ' '.join(n for n in {HEAVY} if n in sys.modules)))\n"
        f"sys.argv = ['sweep', *{words!r}]\n"
        "from sweepkit.cli import main\nmain()\n"
    )
    return python("-c", code, cwd=folder).rpartition("IMPORTED ")[2].split()
