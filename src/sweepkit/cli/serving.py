"""Waiting for a web server on this machine. Knows no MLflow."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from sweepkit.study.errors import SweepError

LOOPBACK = "127.0.0.1"
PORTS_TRIED = 50


def free_port(wanted: int) -> int:
    """Return the wanted port, or the next one that nobody listens on."""
    for port in range(wanted, min(wanted + PORTS_TRIED, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise SweepError(f"no free port from {wanted} on; name another with --port")


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path, *, timeout_seconds: float = 60.0) -> None:
    """Wait until a server answers. Raises SweepError, naming its log, when it ends or does not answer in time."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SweepError(f"the server ended with exit code {server.returncode} before it answered: {log}")
        try:
            with urlopen(address, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    server.terminate()
    raise SweepError(f"the server at {address} did not answer within {timeout_seconds:g} s: {log}")
