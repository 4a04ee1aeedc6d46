"""A real S3 server of a test's own, on this machine. Knows no study."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request, urlopen

import pytest


@contextmanager
def object_store(bucket: str) -> Iterator[str]:
    """Yield the URL of an empty bucket that this process, and those it starts meanwhile, can reach."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is missing; pip install --group dev")
    server = pytest.importorskip("moto.server", reason="moto is missing; pip install --group dev")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else a line per request
    serving = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    serving.start()
    host, port = serving.get_host_and_port()
    url = f"http://{host}:{port}"
    # The servers of one process have one memory.
    urlopen(Request(f"{url}/moto-api/reset", method="POST")).close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "anyone")
        s3fs.S3FileSystem.clear_instance_cache()  # they know their servers' addresses
        s3fs.S3FileSystem().mkdir(bucket)
        try:
            yield f"s3://{bucket}"
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
            serving.stop()
