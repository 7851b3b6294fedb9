"""The module that a command is about: found by what the student typed, unlocked, judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tito.cli.show import cell_counter
from tito.course import Course, Module
from tito.progress import read_progress, require_prerequisites

if TYPE_CHECKING:
    from tito.judge import Verdict


def named(query: str) -> tuple[Course, Module]:
    course = Course.locate()
    return course, course.module(query)


def unlocked(query: str) -> tuple[Course, Module]:
    """The module, if everything that it needs is complete."""
    course, item = named(query)
    require_prerequisites(course, item, read_progress(course))
    return course, item


def judged(course: Course, item: Module, *, quiet: bool = False, stop_at_first_failure: bool = False) -> Verdict:
    from tito.judge import judge, notebook_to_judge

    notebook, repairs = notebook_to_judge(course, item)
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    with cell_counter(item, cells, quiet) as count:
        return judge(
            course, item, notebook, repairs, stop_at_first_failure=stop_at_first_failure, on_cell=lambda _: count()
        )
