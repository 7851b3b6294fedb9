"""A course directory: the folder in which nbgrader, and ``tito nbgrader``, release, collect and grade assignments."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tito.atomic import write_atomically
from tito.course import Course, Module
from tito.errors import TitoError
from tito.grading.config import CONFIG_FILE, CONFIG_TEXT
from tito.newfolder import new_folder
from tito.source import grade_info, read_notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from nbgrader.api import Gradebook
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import Config

_README = Path(__file__).with_name("course_directory.md")


@dataclass(frozen=True)
class Directory:
    """A course directory, the course that it grades, and the settings that nbgrader reads there."""

    root: Path
    course: Course
    config: Config

    @classmethod
    def create(cls, course: Course, root: Path) -> Directory:
        """Make a course directory in ``root``, with the notebooks of every module in ``source/``.

        Raises
        ------
        TitoError
            If ``root`` is not a new or empty folder, or a source cannot be read; nothing is left behind.
        """
        with new_folder(course, root, "course directory") as folder:
            (folder / CONFIG_FILE).write_text(CONFIG_TEXT.format(tree=str(course.root)), encoding="utf-8")
            shutil.copyfile(_README, folder / "README.md")
            for module in course.modules:
                _write_source(folder, module)
            (folder / "submitted").mkdir()
        return cls.open(root)

    @classmethod
    def open(cls, root: Path) -> Directory:
        """The course directory in ``root``.

        Raises
        ------
        TitoError
            If ``root`` is not a course directory of ``tito nbgrader init``, or its course has moved.
        """
        from traitlets.config import PyFileConfigLoader

        root = root.resolve()
        path = root / CONFIG_FILE
        if not path.is_file():
            raise TitoError(
                f"this folder is not a course directory: it has no {CONFIG_FILE}",
                place=str(root),
                next_step="cd into the course directory, name it by --course DIR, or make one: tito nbgrader init DIR",
            )
        try:
            config = PyFileConfigLoader(CONFIG_FILE, path=str(root)).load_config()
        except (Exception, SystemExit) as error:  # the file is Python, and the instructor's to change
            raise TitoError(f"the settings cannot be used: {error}", place=str(path)) from None
        if "course_tree" not in config.RunNotebook:
            raise TitoError(
                "these settings of nbgrader do not name a TinyTorch course",
                place=str(path),
                next_step="make a course directory for the course: tito nbgrader init DIR",
            )
        if not os.access(root, os.W_OK):
            raise TitoError("you may not write to this course directory", place=str(root))
        return cls(root, Course(Path(config.RunNotebook.course_tree)), config)

    def coursedir(self, **traits: Any) -> CourseDirectory:
        """nbgrader's own object for this folder."""
        from nbgrader.coursedir import CourseDirectory

        return CourseDirectory(config=self.config, **traits)

    @contextmanager
    def gradebook(self) -> Iterator[Gradebook]:
        """nbgrader's gradebook, open.

        Raises
        ------
        TitoError
            If the database cannot be used.
        """
        from nbgrader.api import Gradebook
        from sqlalchemy.exc import SQLAlchemyError

        here = self.coursedir()
        try:
            with Gradebook(here.db_url, here.course_id) as gradebook:
                yield gradebook
        except SQLAlchemyError as error:
            raise TitoError(
                f"the gradebook cannot be used: {str(error).splitlines()[0]}",
                place=here.db_url,
                next_step="close other programs that use it; if nbgrader was upgraded: nbgrader db upgrade",
            ) from None

    def source(self, module: Module) -> NotebookNode:
        """The assignment's notebook with its solutions, as it was generated last."""
        return self._generated("source", module)

    def release(self, module: Module) -> NotebookNode:
        """The assignment's notebook as students get it."""
        return self._generated("release", module)

    def _generated(self, step: str, module: Module) -> NotebookNode:
        import nbformat

        path = self.root / step / module.slug / module.notebook.name
        try:
            return nbformat.read(path, as_version=4)
        except (OSError, ValueError) as error:
            raise TitoError(
                f"the assignment {module.slug} cannot be read: {error}",
                place=str(path),
                next_step=f"make it: tito nbgrader generate {module.nn}",
            ) from None

    def refresh(self, module: Module) -> None:
        """Write ``module``'s notebook into ``source/`` again, as its source is now."""
        _write_source(self.root, module)

    def submission(self, module: Module, student: str) -> Path:
        """The folder that ``student`` handed in."""
        return self.root / "submitted" / student / module.slug

    def graded(self, module: Module, student: str) -> Path:
        """The folder of ``student``'s notebook as it was graded; it exists only if it was."""
        return self.root / "autograded" / student / module.slug

    def feedback(self, module: Module, student: str) -> Path:
        """What ``student`` gets back."""
        return self.root / "feedback" / student / module.slug / f"{module.name}.html"

    def submitted(self, module: Module) -> list[str]:
        """The students who handed in something for ``module``."""
        folders = (self.root / "submitted").glob(f"*/{module.slug}")
        return sorted(folder.parent.name for folder in folders if folder.is_dir())


def grade_ids(notebook: NotebookNode) -> list[str]:
    """The ids of the cells that nbgrader knows, in the notebook's order."""
    return [info["grade_id"] for cell in notebook.cells if "grade_id" in (info := grade_info(cell))]


def _write_source(root: Path, module: Module) -> None:
    import nbformat

    # notebooks only: nbgrader copies every other file it finds here to the students
    folder = root / "source" / module.slug
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / module.notebook.name, nbformat.writes(read_notebook(module)) + "\n")
