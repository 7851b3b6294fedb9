"""What is remembered of each submission that was graded, so that it is not graded again until something changes.

Scores are in the gradebook, and nowhere else; here is of what they are the scores, and what befell the submission.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import tito
from tito.atomic import write_atomically
from tito.course import Module
from tito.grading.findings import Findings
from tito.grading.submission import own_files

if TYPE_CHECKING:
    from tito.grading.directory import Directory

# files of this tool on which no outcome depends: those of other commands
_OTHERS = ("audit", "cli", "workspace")


@dataclass(frozen=True)
class Record:
    """How one submission was graded.

    ``problem`` is why it could not be; ``fault`` is true if that was no fault of the submission, so that it is to be
    tried again. ``key`` is a digest of everything that decides the outcome.
    """

    key: str
    isolated: bool
    problem: str = ""
    fault: bool = False
    findings: Findings = field(default_factory=Findings)


def write(directory: Directory, module: Module, student: str, record: Record) -> None:
    path = _path(directory, module, student)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(record), indent=1))


def read(directory: Directory, module: Module, student: str) -> Record | None:
    """The record of a submission; None if there is none, or none that this version of the tool wrote."""
    try:
        fields = json.loads(_path(directory, module, student).read_text(encoding="utf-8"))
        findings = Findings(**{kind: tuple(texts) for kind, texts in fields.pop("findings").items()})
        return Record(**fields, findings=findings)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def forget(directory: Directory, module: Module, student: str) -> None:
    """From now on the submission counts as not graded."""
    _path(directory, module, student).unlink(missing_ok=True)


def _path(directory: Directory, module: Module, student: str) -> Path:
    return directory.root / ".tito" / "graded" / student / f"{module.slug}.json"


def conditions(directory: Directory, module: Module, isolation: bool) -> str:
    """A digest of what decides the scores besides the submissions: assignment, course, limits, this tool, Python."""
    course = directory.course
    tool = Path(tito.__file__).parent
    steps = [directory.root / step / module.slug / module.notebook.name for step in ("source", "release")]
    package = [course.exported(other) for other in course.before(module)]
    package += [path for path in course.library.rglob("*.py") if path.parent.name != "core"]
    tools = [path for path in tool.rglob("*.py") if path.relative_to(tool).parts[0] not in _OTHERS]
    settings = repr(sorted(course.settings["limits"].items()))
    return _digest([*steps, *sorted(package), *sorted(tools)], sys.version, version("numpy"), settings, str(isolation))


def key(directory: Directory, module: Module, student: str, conditions: str) -> str:
    """A digest of what the student handed in, and of the conditions."""
    folder = directory.submission(module, student)
    files = list(own_files(folder))
    return _digest(files, conditions, *(str(path.relative_to(folder)) for path in files))


def _digest(files: Iterable[Path], *words: str) -> str:
    digest = hashlib.sha256("\0".join(words).encode("utf-8", "surrogateescape"))
    for path in files:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError:
            digest.update(b"unreadable")
    return digest.hexdigest()
