"""Real data for the milestones and for your own programs.

>>> from tito import data
>>> digits = data.load("digits")
>>> digits["train_images"].shape
(1437, 8, 8)

What there is: ``tito data list``. Small sets come with the course, the others are fetched once:
``tito data get mnist``. Nothing here uses the network.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tito.data.store import ready
from tito.data.table import data_set
from tito.errors import TitoError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["classes", "folder", "load", "text"]


def load(name: str, *, mapped: bool = False) -> dict[str, NDArray[Any]]:
    """The arrays of the data set ``name`` by their names, such as ``train_images`` and ``train_labels``.

    Images and labels are uint8; ``tito data list`` tells the shapes. With ``mapped`` the arrays stay in their files and
    are read as they are used, and cannot be written to.

    Raises
    ------
    TitoError
        If there is no such data set, it has no arrays, or it is not here; the last names the command that fetches it.
    """
    import numpy as np

    files = {file.removesuffix(".npy") for file in data_set(name).files if file.endswith(".npy")}
    if not files:
        raise TitoError(f"{name} has no arrays", next_step=f"its files are in tito.data.folder({name!r})")
    where = ready(name)
    return {key: np.load(where / f"{key}.npy", mmap_mode="r" if mapped else None) for key in sorted(files)}


def text(name: str) -> str:
    """The text that the data set ``name`` is.

    Raises
    ------
    TitoError
        If there is no such data set, it is not a text, or it is not here.
    """
    file = f"{name}.txt"
    if file not in data_set(name).files:
        raise TitoError(f"{name} is not a text", next_step=f"its files are in tito.data.folder({name!r})")
    return (ready(name) / file).read_text(encoding="utf-8")


def folder(name: str) -> Path:
    """The folder with the files of the data set ``name``, which are not to be written to.

    Raises
    ------
    TitoError
        If there is no such data set, or it is not here.
    """
    return ready(name)


def classes(name: str) -> tuple[str, ...]:
    """What the labels 0, 1, 2, ... of the data set ``name`` stand for; empty if it has no labels.

    Raises
    ------
    TitoError
        If there is no such data set.
    """
    return data_set(name).classes
