"""A release: the workspace that students get. It is this tree without the answers, checked before anyone can see it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template

from tito.course import SETTINGS, Course
from tito.errors import TitoError
from tito.leaks import Leak, find_leaks
from tito.source import read_notebook
from tito.student import student_notebook

_FILES = ("pyproject.toml", "constraints.txt", "LICENSE")
_FOLDERS = ("tito", "tests/modules", "milestones")
_NOISE = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
_SHOWN = 20


def write_release(course: Course, target: Path) -> Path:
    """Write a student's workspace to the folder ``target``, which must be new or empty, and return its full path.

    It is built in a temporary folder beside ``target``, checked for leaks there, and renamed at the end: a release that
    leaks, fails or is stopped leaves nothing.

    Raises
    ------
    TitoError
        If ``target`` cannot be used, a source cannot be released, or the release would leak.
    """
    target = target.expanduser().resolve()
    _check_target(course, target)
    try:
        with _building(target) as folder:
            _fill(course, folder)
            leaks = find_leaks(course, folder)
            if leaks:
                raise _leak_error(leaks)
            os.replace(folder, target)
    except OSError as error:
        raise TitoError(
            f"cannot write the release: {error.strerror or error}",
            place=str(error.filename or target),
            next_step="choose a folder that you may write to, on a disk with room",
        ) from None
    return target


def _check_target(course: Course, target: Path) -> None:
    if course.is_workspace:
        raise TitoError(
            "this is a student's workspace: it has no sources to release",
            place=str(course.root),
            next_step="run tito release in the author's tree",
        )
    inside = target.relative_to(course.root).parts[:1] if target.is_relative_to(course.root) else ()
    if inside and inside[0] in _copied_or_read(course):
        raise TitoError(
            f"a release cannot lie inside {inside[0]}/ of the course itself",
            place=str(target),
            next_step="choose a folder outside the course, such as ~/class",
        )
    if target.exists() and not target.is_dir():
        raise TitoError("this is a file, not a folder", place=str(target), next_step="choose a new folder")
    if target.exists() and any(target.iterdir()):
        raise TitoError(
            "the folder is not empty; a release never writes over anything",
            place=str(target),
            next_step="choose a new or empty folder",
        )
    if not target.parent.is_dir():
        raise TitoError(
            f"there is no folder {target.parent}", place=str(target), next_step=f"create it: mkdir -p {target.parent}"
        )


def _copied_or_read(course: Course) -> set[str]:
    """The folders at the root of the course that a release is made from."""
    folders = (course.setting("course", "modules_path"), course.setting("nbdev", "lib_path"), *_FOLDERS)
    return {Path(folder).parts[0] for folder in folders}


@contextmanager
def _building(target: Path) -> Iterator[Path]:
    """A new folder in a temporary one beside ``target``; what has not been renamed is gone afterwards."""
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        folder = temporary / target.name
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(course: Course, folder: Path) -> None:
    """Write everything a student gets into ``folder``."""
    for name in _FILES:
        if (course.root / name).is_file():
            shutil.copyfile(course.root / name, folder / name)
    for name in _FOLDERS:
        if (course.root / name).is_dir():
            shutil.copytree(course.root / name, folder / name, symlinks=True, ignore=_NOISE)
    _copy_package_without_core(course, folder)
    _write(folder / SETTINGS, _workspace_settings(course))
    _write(folder / "README.md", _readme(course))
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
        try:
            notebook = student_notebook(read_notebook(module))
        except TitoError as error:
            where = ", ".join(filter(None, [str(module.source), error.place]))
            raise TitoError(error.problem, place=where, next_step=error.next_step) from None
        _write(folder / module.notebook.name, nbformat.writes(notebook) + "\n")
        for name in ("README.md", "module.yaml"):
            if not (module.folder / name).is_file():
                raise TitoError(f"module {module.slug} has no {name}", place=str(module.folder), next_step="write it")
            shutil.copyfile(module.folder / name, folder / name)
    for module in workspace.modules:
        module.pristine.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module.notebook, module.pristine)


def _readme(course: Course) -> str:
    template = Template((Path(__file__).parent / "workspace" / "README.md").read_text(encoding="utf-8"))
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
