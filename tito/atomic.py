"""Writing a file so that a reader, a crash or a full disk meets the old bytes or the new ones, never half of them."""

from __future__ import annotations

import os
import tempfile
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
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~_UMASK)  # mkstemp's 0600 would hide the file from the others who may read it
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
