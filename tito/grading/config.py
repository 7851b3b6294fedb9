"""The settings that a course directory's nbgrader_config.py takes from the course."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tito.course import Course

CONFIG_FILE = "nbgrader_config.py"

CONFIG_TEXT = '''\
"""nbgrader's settings for this course directory; the course id and the limits come from the course's settings.ini."""

from pathlib import Path

COURSE_TREE = Path({tree!r})  # if the course has moved, write its new place here

if not (COURSE_TREE / "settings.ini").is_file():
    raise SystemExit(f"the course is not at {{COURSE_TREE}}: write where it is into COURSE_TREE in {{__file__}}")
try:
    from tito.grading.config import configure
except ModuleNotFoundError as missing:
    raise SystemExit(f"{{missing}}: run nbgrader in the environment of the course, where tito is installed") from None

c = get_config()  # noqa: F821: nbgrader defines it for this file
configure(c, COURSE_TREE, Path(__file__).parent)

# settings of your own go below, for example: c.Exchange.root = "/srv/nbgrader/exchange"
'''


def configure(config: Any, course_tree: Path, root: Path) -> None:
    """Let nbgrader grade the course in ``course_tree`` in the course directory ``root``."""
    from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
    from nbgrader.converters import Autograde
    from nbgrader.preprocessors import ClearMarkScheme, Execute, GetGrades
    from traitlets.config import Config

    from tito.grading.preprocessors import HideHiddenTests, RepairNotebook, RunNotebook
    from tito.student import NBGRADER_SETTINGS

    course = Course(course_tree)
    sanitizing = Autograde.class_traits()["sanitize_preprocessors"].default()
    grading = Autograde.class_traits()["autograde_preprocessors"].default()
    config.merge(Config(NBGRADER_SETTINGS))
    config.CourseDirectory.course_id = course.course_id
    config.CourseDirectory.root = str(root.resolve())
    config.RunNotebook.course_tree = str(course_tree)
    config.Autograde.sanitize_preprocessors = [RepairNotebook, *sanitizing]
    config.Autograde.autograde_preprocessors = [RunNotebook if step is Execute else step for step in grading]
    config.GenerateFeedback.preprocessors = [GetGrades, HideHiddenTests, ClearMarkScheme, CSSHTMLHeaderPreprocessor]
    config.HTMLExporter.filters = {"markdown2html": "tito.grading.pages.markdown2html"}
    # the page alone: the files beside a notebook may be links to anywhere
    config.GenerateFeedbackApp.CourseDirectory.ignore = ["*"]
    config.Execute.timeout = course.limits.cell_seconds  # of `nbgrader validate`
    _find_programs_of_this_python()


def _find_programs_of_this_python() -> None:
    """Put this environment's programs on the path: nbgrader starts ``alembic`` by name to make a gradebook."""
    programs = str(Path(sys.executable).parent)
    if programs not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([programs, os.environ.get("PATH", os.defpath)])
