"""A real ``mlflow server`` of a test's own. Knows no study."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

DEADLINE_SECONDS = 120.0


class Server:
    """An MLflow server on this machine that can be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return when it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self.folder / "files")]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **quiet}, cwd=self.folder, start_new_session=True
            )
        until = time.monotonic() + DEADLINE_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < until, "the server did not answer in time"
            threading.Event().wait(0.1)

    def processes(self) -> list[psutil.Process]:
        """Return its processes; none where it does not run."""
        if self._process is None or self._process.poll() is not None:
            return []
        main = psutil.Process(self._process.pid)
        return [main, *main.children(recursive=True)]

    def kill(self) -> None:
        """Kill it with all its workers, at once."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def ask(self, question: str) -> list[Any]:
        """Return what the server's own database answers."""
        connection = sqlite3.connect(self.folder / "mlflow.db")
        try:
            return connection.execute(question).fetchall()
        finally:
            connection.close()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


class Middle:
    """Stands between a client and a server, and passes on neither more nor less than ``answers`` lets it.

    ``answers`` gets a request's path and the server's answer, and returns the answer to send, None for none: the connection
    is closed then, as when a network loses it.
    """

    def __init__(self, server: Server, answers: Callable[[str, bytes], bytes | None]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                upstream = http.client.HTTPConnection("127.0.0.1", server.port, timeout=180)
                upstream.request(self.command, self.path, body, dict(self.headers))
                found = upstream.getresponse()
                content = answers(self.path, found.read())
                upstream.close()
                self.close_connection = True
                if content is not None:
                    self.send_response(found.status)
                    self.send_header("Content-Type", found.getheader("Content-Type", "application/json"))
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Middle:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()
