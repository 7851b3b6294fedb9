"""Where data sets are kept, and how one gets there: fetched, checked, read, checked again, and renamed into its place.

The sets that the course ships stand in ``datasets/``; the others in a cache, ``$TINYTORCH_DATA`` or this system's
folder for caches (on Linux ``$XDG_CACHE_HOME/tinytorch`` or ``~/.cache/tinytorch``). A set is a folder there that is
complete from the moment it exists: whatever ends a fetch, no half of one is left under its name.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tito.data.table import Content, DataSet, data_set
from tito.errors import TitoError

_SHIPPED = Path(__file__).parents[2] / "datasets"


def cache() -> Path:
    """The folder that data sets are fetched into."""
    from platformdirs import user_cache_path

    chosen = os.environ.get("TINYTORCH_DATA")
    return Path(chosen).expanduser().absolute() if chosen else user_cache_path("tinytorch", appauthor=False)


def find(data: DataSet) -> Path | None:
    """The folder with all files of ``data``, each of the right length; None if there is none."""
    return next(_complete(data), None)


def _complete(data: DataSet) -> Iterator[Path]:
    for folder in (cache() / data.name, _SHIPPED / data.name):
        if all(_length(folder / file) == content.bytes for file, content in data.files.items()):
            yield folder


def _length(path: Path) -> int:
    """In bytes; -1 if there is no such file."""
    return path.stat().st_size if path.is_file() else -1


def ready(name: str) -> Path:
    """The folder with the files of the data set ``name``.

    Raises
    ------
    TitoError
        If there is no such data set, or it is not here; the latter names the command that fetches it.
    """
    folder = find(data_set(name))
    if folder is None:
        raise TitoError(
            f"the data set {name} is not on this machine",
            place=str(cache() / name),
            next_step=f"when you are online, run: tito data get {name}",
        )
    return folder


def get(
    name: str, *, on_bytes: Callable[[int], None] = lambda _: None, on_wait: Callable[[], None] = lambda: None
) -> Path:
    """The folder with the files of the data set ``name``, whose SHA-256 are checked; it is fetched if it is not here.

    ``on_bytes`` is told how many bytes have come, as they come; ``on_wait`` is called if somebody else is fetching the
    same set now, and we wait for them.

    Raises
    ------
    TitoError
        If there is no such data set, it cannot be fetched, or what came is not what the table says.
    OSError
        If the cache cannot be written.
    """
    data = data_set(name)
    folder = _intact(data)
    if folder is None:
        with _only_one(data, on_wait):
            folder = _intact(data) or _fetched(data, on_bytes)
    return folder


def _intact(data: DataSet) -> Path | None:
    """As ``find``, but every byte is looked at."""
    return next((folder for folder in _complete(data) if not _wrong(folder, data.files)), None)


def _wrong(folder: Path, contents: Mapping[str, Content]) -> str:
    """The first file in ``folder`` that is not what it must be, and why; empty if all are right."""
    for file, expected in contents.items():
        path = folder / file
        if _length(path) != expected.bytes:
            return f"{file} has {_length(path):,} bytes instead of {expected.bytes:,}"
        with path.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != expected.sha256:
            return f"{file} has the SHA-256 {found[:12]}... instead of {expected.sha256[:12]}..."
    return ""


@contextmanager
def _only_one(data: DataSet, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of ``data``, and wait for it if need be; the system frees it whenever and however we end."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f".{data.name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetched(data: DataSet, on_bytes: Callable[[int], None]) -> Path:
    from tito.data.fetch import fetch

    for left in cache().glob(f".{data.name}.*.tmp"):
        shutil.rmtree(left, ignore_errors=True)  # of a fetch that was killed
    with tempfile.TemporaryDirectory(dir=cache(), prefix=f".{data.name}.", suffix=".tmp") as temporary:
        archive = fetch(data, Path(temporary), on_bytes)
        problem = _wrong(archive.parent, {archive.name: data.archive})
        if problem:
            raise _unexpected(data, problem)
        made = Path(temporary) / "made"
        made.mkdir()
        _write_files(data, archive, made)
        target = cache() / data.name
        if target.exists():
            target.rename(Path(temporary) / "damaged")
        made.rename(target)
    return target


def _write_files(data: DataSet, archive: Path, folder: Path) -> None:
    from tito.data.readers import read_archive

    for file, content in read_archive(data.name, archive).items():
        (folder / file).write_bytes(content)
    problem = _wrong(folder, data.files)
    if problem:
        raise _unexpected(data, problem)


def _unexpected(data: DataSet, problem: str) -> TitoError:
    return TitoError(
        f"what {data.client} fetched for {data.name} is not what it should be, and was thrown away: {problem}",
        place=f"the package {data.package} {data.version}",
        next_step=f"try again: tito data get {data.name}   If it happens twice, somebody has changed the package: "
        "do not use it, and tell your instructor",
    )
