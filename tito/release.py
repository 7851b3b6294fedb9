"""A release: the workspace that students get. It is this tree without the answers, checked before anyone can see it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from tito.course import SETTINGS, Course, Module
from tito.errors import TitoError
from tito.hints import FILE as HINTS
from tito.leaks import Leak, find_leaks
from tito.newfolder import full_path, new_folder
from tito.rules import require_rules
from tito.solutions import write_pack
from tito.source import read_notebook
from tito.student import student_notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode

_FILES = ("pyproject.toml", "constraints.txt", "LICENSE")
_FOLDERS = ("tito", "tests/modules", "milestones", "datasets")
_NOISE = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
_SHOWN = 20
_TEXTS = Path(__file__).parent / "workspace"


def write_release(course: Course, target: Path, *, self_study: bool = False) -> Path:
    """Write a student's workspace to the folder ``target``, which must be new or empty, and return its full path.

    It is built in a temporary folder beside ``target``, checked for leaks there, and renamed at the end: a release that
    leaks, fails or is stopped leaves nothing. For ``self_study`` the solutions are packed into what passed the check.

    Raises
    ------
    TitoError
        If ``target`` cannot be used, a source cannot be released, or the release would leak.
    """
    target = full_path(target)
    with new_folder(course, target, "release") as folder:
        _fill(course, folder, self_study)
        leaks = find_leaks(course, folder)
        if leaks:
            raise _leak_error(leaks)
        if self_study:
            write_pack(course, Course(folder))
    return target


def _fill(course: Course, folder: Path, self_study: bool) -> None:
    """Write everything a student gets into ``folder``, but for the solutions."""
    for name in _FILES:
        if (course.root / name).is_file():
            shutil.copyfile(course.root / name, folder / name)
    for name in _FOLDERS:
        if (course.root / name).is_dir():
            shutil.copytree(course.root / name, folder / name, symlinks=True, ignore=_NOISE)
    _copy_package_without_core(course, folder)
    _write(folder / SETTINGS, _workspace_settings(course))
    _write(folder / "README.md", _readme(course, self_study))
    _write_modules(course, Course(folder))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _copy_package_without_core(course: Course, folder: Path) -> None:
    """Copy the hand-written part of the package; what the modules export stays behind."""
    package = folder / course.library.name
    shutil.copytree(course.library, package, symlinks=True, ignore=_NOISE)
    (package / "_modidx.py").unlink(missing_ok=True)
    for path in (package / "core").glob("*.py"):
        if path.name != "__init__.py":
            path.unlink()


def _workspace_settings(course: Course) -> str:
    """The course's settings.ini, comments included, as the settings of a workspace."""
    text = (course.root / SETTINGS).read_text(encoding="utf-8")
    return re.sub(r"(?m)^kind\s*=.*$", "kind = workspace", text, count=1)


def _write_modules(course: Course, workspace: Course) -> None:
    """Write each module's notebook, and the pristine copy that it is judged by and reset from."""
    import nbformat

    for module in course.modules:
        folder = workspace.root / module.folder.relative_to(course.root)
        _write(folder / module.notebook.name, nbformat.writes(_for_students(course, module)) + "\n")
        for name in ("README.md", "module.yaml", HINTS):
            if not (module.folder / name).is_file():
                raise TitoError(f"module {module.slug} has no {name}", place=str(module.folder), next_step="write it")
            shutil.copyfile(module.folder / name, folder / name)
    for module in workspace.modules:
        module.pristine.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module.notebook, module.pristine)


def _for_students(course: Course, module: Module) -> NotebookNode:
    """The module's notebook as students get it, if its source is fit for them."""
    notebook = read_notebook(module)
    try:
        released = student_notebook(notebook)
    except TitoError as error:
        where = ", ".join(filter(None, [str(module.source), error.place]))
        raise TitoError(error.problem, place=where, next_step=error.next_step) from None
    require_rules(course, module, notebook)
    return released


def _readme(course: Course, self_study: bool) -> str:
    names = ("README.md", "self_study.md") if self_study else ("README.md",)
    template = Template("\n".join((_TEXTS / name).read_text(encoding="utf-8") for name in names))
    return template.substitute(modules=_module_table(course), first=course.modules[0].nn)


def _module_table(course: Course) -> str:
    rows = [
        f"| {m.nn} | [{m.title}](modules/{m.slug}/README.md) | {m.part} "
        f"| {', '.join(f'{n:02d}' for n in m.prerequisites) or '-'} | {m.hours:g} |"
        for m in course.modules
    ]
    return "\n".join(["| | module | part | needs | hours |", "|---|---|---|---|---|", *rows])


def _leak_error(leaks: list[Leak]) -> TitoError:
    shown = [f"  {leak}" for leak in leaks[:_SHOWN]]
    more = [f"  and {len(leaks) - _SHOWN} more"] if len(leaks) > _SHOWN else []
    count = f"{len(leaks)} thing{'s' * (len(leaks) != 1)}"
    return TitoError(
        "\n".join(
            [f"the release would show students {count} that they must not see; it was not written", *shown, *more]
        ),
        next_step="take the line or file out, or, if the line is too plain to be a secret, give its names more meaning",
    )
