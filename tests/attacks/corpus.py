"""What a student can hand in to earn what was not learned, to lose what was, or to stop the class: the description.

An entry is a function that edits a notebook, blank or solved, the way its docstring says. The files beside this one
hold the entries, a family each; ``entries()`` is all of them.

Every entry is harmless outside the sandbox, so that it can be tried there: a bomb is bounded, and who writes to a
gradebook writes to the row of their own name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any, Literal

import nbformat
from nbformat import NotebookNode

from tito.course import Course, Module
from tito.grading import students
from tito.outcome import is_test
from tito.source import grade_info

FAMILIES = (
    "answers",
    "kernel",
    "gradebook",
    "liars",
    "connection",
    "endings",
    "floods",
    "errors",
    "notebooks",
    "files",
)

Kind = Literal["attack", "accident", "stopper"]
# what nbgrader as it comes does with it: gives points for nothing, takes honest ones, hangs or dies,
# refuses to grade it, grades it rightly; untried: not measured, or too rough for the machine
Stock = Literal["gains", "loses", "stops", "fails", "right", "untried"]


@dataclass
class HandIn:
    """What one student hands in, while an entry edits it."""

    student: str
    course: Course
    module: Module
    notebook: NotebookNode
    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    text: bytes | None = None  # in place of the notebook

    def cell(self, grade_id: str) -> NotebookNode:
        return next(cell for cell in self.notebook.cells if grade_info(cell).get("grade_id") == grade_id)

    def answer(self, grade_id: str, source: str) -> None:
        """Replace the code of an exercise; its export directive stays."""
        cell = self.cell(grade_id)
        cell.source = "\n".join([*_directives(cell.source), dedent(source).strip()])

    def begin(self, grade_id: str, source: str) -> None:
        """Put ``source`` before the code of an exercise."""
        cell = self.cell(grade_id)
        kept = _directives(cell.source)
        cell.source = "\n".join([*kept, dedent(source).strip(), *cell.source.split("\n")[len(kept) :]])

    def end(self, grade_id: str, source: str) -> None:
        """Put ``source`` below the code of an exercise."""
        self.cell(grade_id).source += "\n\n" + dedent(source).strip()

    def extra(self, source: str, *, before: str = "", after: str = "") -> NotebookNode:
        """A new code cell beside another one; by default the notebook's first."""
        other = before or after
        place = self.notebook.cells.index(self.cell(other)) + bool(after) if other else 0
        cell = nbformat.v4.new_code_cell(dedent(source).strip(), id=f"extra-{place}-{len(self.notebook.cells)}")
        self.notebook.cells.insert(place, cell)
        return cell

    def replace(self, grade_id: str, old: str, new: str) -> None:
        cell = self.cell(grade_id)
        assert old in cell.source, f"{grade_id} has no {old!r}"
        cell.source = cell.source.replace(old, new)

    def forget(self, *grade_ids: str) -> None:
        """Take the answer to exercises out again."""
        released = {grade_info(cell).get("grade_id"): cell for cell in _made_before(self.module, "blank").cells}
        for grade_id in grade_ids:
            self.cell(grade_id).source = released[grade_id].source

    def tests(self) -> Iterator[NotebookNode]:
        return (cell for cell in self.notebook.cells if is_test(cell))

    def raw(self, edit: Callable[[dict[str, Any]], Any]) -> None:
        """Edit the notebook's JSON, which need not be a valid notebook afterwards."""
        content = json.loads(nbformat.writes(self.notebook))
        edit(content)
        self.text = json.dumps(content, indent=1).encode()

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        path = folder / self.module.notebook.name
        if path.name not in self.links:
            path.write_bytes(nbformat.writes(self.notebook).encode() if self.text is None else self.text)
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        for name, target in self.links.items():
            (folder / name).symlink_to(target)


@dataclass(frozen=True)
class Entry:
    """An attack or an accident, and what it may earn: every test but ``costs``. All but ``unsure`` of them are owed.

    ``stock`` is what nbgrader as it comes makes of it, as ``python -m tests.attacks --stock`` measured.
    """

    name: str
    family: str
    story: str
    kind: Kind
    nn: str
    base: str
    costs: frozenset[str]
    unsure: frozenset[str]
    graded: bool
    stock: Stock
    edit: Callable[[HandIn], Any]

    def hand_in(self, course: Course) -> HandIn:
        module = course.module(self.nn)
        made = HandIn(self.name, course, module, deepcopy(_made_before(module, self.base)))
        self.edit(made)
        return made


_ENTRIES: dict[str, Entry] = {}
EVERY = "every test"


def _entry(kind: Kind, base: str, costs: Iterable[str], unsure: Iterable[str], **fields: Any) -> Callable[..., Any]:
    def keep(edit: Callable[[HandIn], Any]) -> Callable[[HandIn], Any]:
        assert edit.__name__ not in _ENTRIES, f"two entries are named {edit.__name__}"
        assert edit.__doc__, f"{edit.__name__} does not say what it does"
        family = edit.__module__.rpartition(".")[2]
        _ENTRIES[edit.__name__] = Entry(
            edit.__name__, family, dedent(edit.__doc__).strip(), kind, base=base, edit=edit,
            costs=frozenset(costs), unsure=frozenset(unsure), **fields,
        )  # fmt: skip
        return edit

    return keep


def attack(
    *, stock: Stock, nn: str = "12", base: str = "blank", costs: Iterable[str] = (EVERY,), graded: bool = True
) -> Callable[..., Any]:
    """An entry that wants points: the tests in ``costs`` must not be earned; the others may be."""
    return _entry("attack", base, costs, (EVERY,), nn=nn, graded=graded, stock=stock)


def accident(
    *, stock: Stock, nn: str = "12", base: str = "solved", costs: Iterable[str] = (), unsure: Iterable[str] = ()
) -> Callable[..., Any]:
    """An entry of an honest student, who must lose nothing but ``costs``, and may lose ``unsure``."""
    return _entry("accident", base, costs, unsure, nn=nn, graded=True, stock=stock)


def stopper(
    *,
    stock: Stock,
    nn: str = "12",
    base: str = "solved",
    costs: Iterable[str] = (),
    unsure: Iterable[str] = (),
    graded: bool = True,
) -> Callable[..., Any]:
    """An entry that could stop the grading of others; ``graded`` is False where it cannot be graded itself."""
    return _entry("stopper", base, (EVERY,) if base == "blank" else costs, unsure, nn=nn, graded=graded, stock=stock)


def entries() -> list[Entry]:
    """Every entry, family by family."""
    for family in FAMILIES:
        import_module(f"tests.attacks.{family}")
    return sorted(_ENTRIES.values(), key=lambda entry: FAMILIES.index(entry.family))


@cache
def _made_before(module: Module, base: str) -> NotebookNode:
    return students.blank(module) if base == "blank" else students.solved(module)


def _directives(source: str) -> list[str]:
    return [line for line in source.split("\n")[:1] if line.startswith("#|")]
