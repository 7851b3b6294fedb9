"""Writing files so that a reader, a crash or a full disk meets the old bytes or the new ones, never half of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

_UMASK = os.umask(0)
os.umask(_UMASK)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) to a temporary file beside ``path``, then rename it to ``path``.

    Raises
    ------
    OSError
        If the folder cannot be written or the disk is full; ``path`` is then as it was, and nothing is left behind.
    """
    write_together({path: content})


def write_together(contents: Mapping[Path, str | bytes]) -> None:
    """Write several files, each as ``write_atomically`` does; none is renamed before all have found room on the disk.

    Raises
    ------
    OSError
        If a file cannot be written; as long as it is not a rename that fails, no file has changed.
    """
    temporary: dict[Path, str] = {}
    try:
        for path, content in contents.items():
            handle, temporary[path] = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode("utf-8") if isinstance(content, str) else content)
            os.chmod(temporary[path], 0o666 & ~_UMASK)  # mkstemp's 0600 would keep out others who may read the folder
        for path in contents:
            os.replace(temporary[path], path)
            del temporary[path]
    finally:
        for left in temporary.values():
            os.unlink(left)
