"""The command ``sweep``: parses, calls and prints; what a command does is in the library.

Commands import what they need when they run, so that ``sweep --help`` and the shell's completion are quick.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from io import TextIOWrapper
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from sweepkit.cli import best, looking, running, writing
from sweepkit.study.errors import FULL_DISK, NO_SPACE, StudyFileError, SweepError
from sweepkit.study.files import printable
from sweepkit.study.streams import scrub_output

DEBUG = "SWEEPKIT_DEBUG"


class _Command(TyperCommand):
    """A command whose help names values as a person types them, without types, and no braces around arguments."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _named(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]


class _Group(TyperGroup):
    """The same for ``sweep`` itself."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _named(super().get_params(ctx))


def _named(parameters: list[Any]) -> list[Any]:
    """Show beside an option its metavar, by default its own name, and nothing beside a flag or an argument."""
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: ""
        elif parameter.is_bool_flag:
            parameter.metavar = ""
        elif parameter.metavar is None:
            parameter.metavar = max(parameter.opts, key=len).lstrip("-").upper()
    return parameters


app = typer.Typer(
    name="sweep",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="STUDY is a study file, its folder, or the name of a study that ran. SWEEPKIT_DEBUG=1 shows tracebacks.",
)

COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Write a study": {
        "new": writing.new,
        "task": writing.task,
        "import": writing.import_,
        "check": writing.check,
        "schema": writing.schema,
        "try": running.try_,
    },
    "Run a study": {
        "tune": running.tune,
        "run": running.run,
        "enqueue": running.enqueue,
        "stop": running.stop,
        "retry": running.retry,
        "sync": running.sync,
    },
    "See results": {
        "show": looking.show,
        "best": best.best,
        "replay": looking.replay,
        "report": looking.report,
        "list": looking.list_,
        "ui": looking.ui,
    },
}
"""Panel of ``sweep --help`` → command → function; a new command is one function and one entry here."""


def _paragraphs(docstring: str) -> str:
    """Return a docstring with each paragraph in one line, as the terminal wraps it anyway."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in docstring.split("\n\n"))


for panel, commands in COMMANDS.items():
    for name, function in commands.items():
        app.command(name, cls=_Command, help=_paragraphs(function.__doc__ or ""), rich_help_panel=panel)(function)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version as installed

        typer.echo(f"sweepkit {installed('sweepkit')}")
        raise typer.Exit


@app.callback()
def sweep(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Hyperparameter studies for Hugging Face Trainer models."""


def main() -> NoReturn:
    """Run the command line, print errors, and exit: 0 done, 1 failed, 2 bad input, 3 undelivered, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(
                errors="replace"
            )  # text from outside, or ours on an ASCII terminal, never ends a command
    scrub_output()
    gc.set_threshold(100_000)  # a command imports a million objects, none of them garbage
    try:
        app()
    except SweepError as error:
        _print_error(error, str(error) if isinstance(error, StudyFileError) else f"error: {error}")
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001  # the last edge: whatever happened, a person gets a sentence
        if isinstance(error, shutil.Error):  # what copying a folder met, file by file
            text = f"error: {error.args[0][0][-1]}"
        elif isinstance(error, OSError) and error.errno in FULL_DISK:
            text = f"error: {NO_SPACE}"
        elif isinstance(error, OSError) and error.strerror:  # a disk that is read-only or gone
            text = f"error: {error.filename or 'the disk'}: {error.strerror.lower()}"
        elif isinstance(error, UnicodeEncodeError) and sys.getfilesystemencoding() != "utf-8":
            names = f"file names are {error.encoding} in this locale, which cannot write {error.object!r}"
            text = f"error: {names}; set PYTHONUTF8=1, or LC_ALL=C.UTF-8"
        else:
            hint = f"run the command with {DEBUG}=1 to see where this was raised"
            text = f"error: {type(error).__name__}: {error}\n{hint}"
        _print_error(error, text)
        sys.exit(1)
    sys.exit(0)


def _print_error(error: Exception, text: str) -> None:
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    else:
        typer.echo("\n".join(map(printable, text.splitlines())), err=True)
