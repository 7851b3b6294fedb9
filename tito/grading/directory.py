"""A course directory: the folder in which nbgrader, and ``tito nbgrader``, release, collect and grade assignments."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from tito.atomic import write_atomically
from tito.course import Course, Module
from tito.errors import TitoError
from tito.grading.config import CONFIG_FILE, CONFIG_TEXT
from tito.newfolder import new_folder
from tito.source import read_notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from nbgrader.api import Gradebook
    from nbgrader.coursedir import CourseDirectory
    from sqlalchemy.engine import Engine
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

        here = self.coursedir()
        with self._told(), Gradebook(here.db_url, here.course_id) as gradebook:
            yield gradebook

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written to the gradebook meanwhile, by nbgrader too, is kept when the block ends; or nothing is.

        nbgrader opens its gradebook a dozen times to grade a submission, and commits each score by itself. Here all of
        that is one transaction on one connection, whatever the database.

        Raises
        ------
        TitoError
            If the database cannot be used.
        """
        from nbgrader.api import Gradebook
        from sqlalchemy.orm import scoped_session, sessionmaker

        with self._told(), self._engine.begin() as connection:

            def join(gradebook: Any, db_url: str, course_id: str = "", authenticator: Any = None) -> None:
                make = sessionmaker(connection, expire_on_commit=False, join_transaction_mode="rollback_only")
                gradebook.engine, gradebook.db = connection, scoped_session(make)
                gradebook.course_id, gradebook.authenticator = course_id, authenticator

            leave = patch.object(Gradebook, "close", lambda gradebook: gradebook.db.remove())
            with patch.object(Gradebook, "__init__", join), leave:
                yield

    @cached_property
    def _engine(self) -> Engine:
        from sqlalchemy import create_engine

        with self.gradebook():  # makes the tables
            return create_engine(self.coursedir().db_url)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Trouble with the database, told as every other refusal is."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except SQLAlchemyError as error:
            raise TitoError(
                f"the gradebook cannot be used: {str(error).splitlines()[0]}",
                place=self.coursedir().db_url,
                next_step="close other programs that use it; if nbgrader was upgraded: nbgrader db upgrade",
            ) from None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs of this tool from writing to this course directory; the lock ends with this process.

        Raises
        ------
        TitoError
            If another run is at work in it.
        """
        path = self.root / ".tito" / "lock"
        path.parent.mkdir(exist_ok=True)
        with path.open("a+", encoding="utf-8") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise TitoError(
                    f"another run is at work in this course directory: {file.read().strip() or 'it just began'}",
                    place=str(self.root),
                    next_step="wait until it has ended, or end it",
                ) from None
            file.truncate(0)
            now = datetime.now().astimezone()
            file.write(f"process {os.getpid()} on {socket.gethostname()}, since {now:%Y-%m-%d %H:%M:%S %Z}")
            file.flush()
            yield

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


def _write_source(root: Path, module: Module) -> None:
    import nbformat

    # notebooks only: nbgrader copies every other file it finds here to the students
    folder = root / "source" / module.slug
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / module.notebook.name, nbformat.writes(read_notebook(module)) + "\n")
