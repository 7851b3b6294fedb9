"""The leak check: nothing that students must not see stands in a release.

A secret is a line inside a solution, a hidden test or a mark scheme of a module's source that does not also stand
outside such regions in the same source. White space around it does not count, nor do the signs that make a line a
comment, a quotation or a list item. Lines of nothing but Python's keywords, punctuation and numbers tell nothing.
Notebooks and other JSON are read string by string, and zip archives are opened.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

from tito.course import Course, Module
from tito.source import is_marker, split_secret

_NUMBER = re.compile(r"\b\d\w*(\.\w+)?")
_WORD = re.compile(r"\w+")
_LINE_END = re.compile(r"\r?\n|\r")
_LEAD = re.compile(r"^(?:(?:#+|>+|\.\.\.|[-+*])\s+)+")  # what a comment, prompt, quotation, list or diff begins with


@dataclass(frozen=True)
class Leak:
    """A line or file that must not be in a release."""

    place: str
    problem: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}"


def find_leaks(course: Course, release: Path) -> list[Leak]:
    """Everything in the folder ``release`` that students must not see, by the sources of ``course``."""
    secrets = _secrets(course)
    leaks: list[Leak] = []
    for path in sorted(release.rglob("*")):
        name = path.relative_to(release).as_posix()
        if path.is_symlink():
            leaks.append(Leak(name, "a symbolic link, which may lead out of the release"))
        elif path.is_file():
            leaks += _leaks_in_file(path.read_bytes(), name, secrets)
    return leaks


def _secrets(course: Course) -> dict[str, str]:
    """Every secret line of the sources, and the first place it stands: ``modules/02_tensor/tensor_dev.py:34``."""
    found: dict[str, str] = {}
    for module in course.modules:
        for number, text in _secret_lines(module):
            found.setdefault(text, f"{module.source.relative_to(course.root).as_posix()}:{number}")
    return found


def _secret_lines(module: Module) -> list[tuple[int, str]]:
    secret, public = split_secret(module.source.read_text(encoding="utf-8"))
    known = {_bare(line) for line in public}
    lines = ((line.number, _bare(line.text)) for line in secret)
    return [(number, text) for number, text in lines if text not in known and _tells_something(text)]


def _bare(line: str) -> str:
    """``line`` without white space around it and without the signs of a comment, prompt, quotation or list."""
    return _LEAD.sub("", line.strip())


def _tells_something(text: str) -> bool:
    return any(not keyword.iskeyword(word) for word in _WORD.findall(_NUMBER.sub("", text)))


def _forbidden(name: str) -> str:
    """Why a file of this name cannot be in a release; empty if it can."""
    if name.endswith("_dev.py"):
        return "an author's source"
    if name.endswith(".db"):
        return "a gradebook"
    if name.endswith(".py") and name.startswith("modules/"):
        return "a Python file among the notebooks"
    return ""


def _leaks_in_file(content: bytes, name: str, secrets: dict[str, str]) -> Iterator[Leak]:
    """What is wrong with the file called ``name``, which may lie in an archive: ``data/digits.npz!images.npy``."""
    forbidden = _forbidden(name)
    if forbidden:
        yield Leak(name, forbidden)
        return
    if is_zipfile(BytesIO(content)):
        yield from _leaks_in_archive(content, name, secrets)
    text = content.decode("utf-8", errors="replace")
    if name.endswith(".ipynb"):
        yield from _leaks_in_notebook(text, name, secrets)
        return
    lines = enumerate(_LINE_END.split(text), start=1)
    yield from _leaks_in_lines(((f"{name}:{number}", line) for number, line in lines), secrets)
    if name.endswith(".json"):
        with suppress(ValueError):
            yield from _leaks_in_lines(((name, line) for line in _strings(json.loads(text))), secrets)


def _leaks_in_archive(content: bytes, name: str, secrets: dict[str, str]) -> Iterator[Leak]:
    try:
        with ZipFile(BytesIO(content)) as archive:
            members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    except Exception:  # BadZipFile, zlib.error, RuntimeError where it is encrypted, and more
        yield Leak(name, "an archive that cannot be read")
        return
    for member, inner in members:
        yield from _leaks_in_file(inner, f"{name}!{member}", secrets)


def _leaks_in_notebook(text: str, name: str, secrets: dict[str, str]) -> Iterator[Leak]:
    try:
        lines = list(_notebook_lines(json.loads(text), name))
    except (ValueError, LookupError, AttributeError, TypeError):
        yield Leak(name, "not a notebook that can be read")
        return
    yield from (Leak(place, "a marker of a solution or hidden test") for place, line in lines if is_marker(line))
    yield from _leaks_in_lines(lines, secrets)


def _leaks_in_lines(lines: Iterable[tuple[str, str]], secrets: dict[str, str]) -> Iterator[Leak]:
    for place, line in lines:
        text = _bare(line)
        if text in secrets:
            yield Leak(place, f"{text!r} is a secret of {secrets[text]}")


def _notebook_lines(notebook: dict[str, Any], name: str) -> Iterator[tuple[str, str]]:
    """Every line of text in a notebook (sources, outputs, attachments, metadata), and where it stands."""
    for position, cell in enumerate(notebook["cells"]):
        for line in _strings(cell):
            yield f"{name} cell {cell.get('id', position)}", line
    for line in _strings({key: value for key, value in notebook.items() if key != "cells"}):
        yield f"{name} metadata", line


def _strings(value: Any) -> Iterator[str]:
    """The lines of every string in a JSON value."""
    if isinstance(value, str):
        yield from value.splitlines()
    elif isinstance(value, dict):
        yield from (line for inner in value.values() for line in _strings(inner))
    elif isinstance(value, list):
        yield from (line for inner in value for line in _strings(inner))
