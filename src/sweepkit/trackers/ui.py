"""The web server that shows a tracker's records: one that is already running, or one started on this machine."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from urllib.error import URLError
from urllib.request import urlopen

from sweepkit.study.errors import SweepError

LOOPBACK = "127.0.0.1"
PORTS_TRIED = 50


class Ui:
    """A server at ``address``. With a ``command`` it runs within the ``with`` block; its output goes to ``log``.

    Entering waits until it answers. Raises SweepError, naming the log, if it exits first or takes too long.
    """

    def __init__(
        self,
        address: str,
        command: Sequence[str] = (),
        *,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        timeout_seconds: float = 60.0,
    ) -> None:
        self.address = address
        self.command = tuple(command)
        self.environment = dict(environment or {})
        self._log = log
        self._timeout = timeout_seconds
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Ui:
        if self.command:
            assert self._log is not None
            with self._log.open("wb") as output:
                self._server = subprocess.Popen(self.command, env=self.environment, stdout=output, stderr=output)
            try:
                _wait_for(self.address, self._server, self._log, self._timeout)
            except BaseException:
                self._end()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def wait(self) -> int:
        """Wait for the server and return its exit code; 0 at once if none was started."""
        return self._server.wait() if self._server else 0

    def _end(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait()


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


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SweepError(f"the server ended with exit code {server.returncode} before it answered: {log}")
        try:
            with urlopen(address, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise SweepError(f"the server at {address} did not answer within {seconds:g} s: {log}")
