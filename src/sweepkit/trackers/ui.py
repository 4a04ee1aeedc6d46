"""The web server that shows a tracker's records: one that is already running, or one started on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

from sweepkit.study.errors import SweepError
from sweepkit.study.files import open_own

LOOPBACK = "127.0.0.1"
PORTS_TRIED = 50
_ENDS_WITH_US = (
    "import os, sys; from signal import SIGTERM; from sweepkit.study.linux import die_with_parent; "
    "die_with_parent(SIGTERM); os.execvp(sys.argv[1], sys.argv[1:])"
)
"""Runs a command that ends with this process, however that ends."""


@dataclass(frozen=True)
class Ui:
    """A server that shows the record: one that runs already, or one to be started with ``command``."""

    address: str
    front: str
    """The address of its page that lists everything."""
    store: str
    """Where the records are, without a password."""
    exists: bool = True
    """False for a store on this machine that is not there."""
    command: tuple[str, ...] = ()
    """Empty for a server that runs already."""
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path = Path(os.devnull)

    @contextmanager
    def serving(self, timeout_seconds: float = 60.0) -> Iterator[subprocess.Popen[bytes]]:
        """Start the server, wait until it answers, and end it when the block is left; its output goes to the log.

        Raises SweepError, naming the log, if it exits first or takes too long.
        """
        command = [sys.executable, "-c", _ENDS_WITH_US, *self.command]
        with os.fdopen(open_own(self.log, os.O_WRONLY | os.O_TRUNC), "wb") as output:
            server = subprocess.Popen(command, env=self.environment, stdout=output, stderr=output)
        try:
            self._wait_for(server, timeout_seconds)
            yield server
        finally:
            server.terminate()
            server.wait()

    def _wait_for(self, server: subprocess.Popen[bytes], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if server.poll() is not None:
                code = server.returncode
                raise SweepError(f"the server ended with exit code {code} before it answered: {self.log}")
            try:
                with urlopen(self.address, timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        raise SweepError(f"the server at {self.address} did not answer within {seconds:g} s: {self.log}")


def free_port(wanted: int) -> int:
    """Return the wanted port or the next free one. Raises SweepError if none is free nearby."""
    for port in range(wanted, min(wanted + PORTS_TRIED, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise SweepError(f"no free port from {wanted} on; name another with --port")
