"""The one catalogue of milestones: the folders in ``milestones/`` with their ``milestone.yaml``, and their state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tito.course import Course, described_in
from tito.data.store import find as find_data
from tito.data.table import data_set
from tito.errors import TitoError
from tito.milestones.results import Result, read_result
from tito.progress import Progress, missing_prerequisite

# missed: it was run, and its goals were not met; no data: a data set that it needs is not on this machine
State = Literal["reached", "missed", "ready", "no data", "locked"]


@dataclass(frozen=True)
class Milestone:
    """One milestone, as its folder and ``milestone.yaml`` describe it."""

    root: Path
    folder: Path
    number: int
    year: int
    name: str
    title: str
    about: str
    prerequisites: tuple[int, ...]
    data: tuple[str, ...]
    figures: tuple[str, ...]

    @property
    def slug(self) -> str:
        """``01_1957_perceptron``: the folder's name."""
        return self.folder.name

    @property
    def nn(self) -> str:
        """The number as people type it: ``01``."""
        return f"{self.number:02d}"

    @property
    def program(self) -> Path:
        """``milestones/01_1957_perceptron/perceptron.py``."""
        return self.folder / f"{self.name}.py"

    @property
    def results(self) -> Path:
        """The folder that the program writes its figures and its result to."""
        return self.root / "results" / self.slug


def milestones(course: Course) -> tuple[Milestone, ...]:
    """Every milestone of ``course``, by number; a course may have none."""
    folder = course.root / "milestones"
    return tuple(_read(course, path.parent) for path in sorted(folder.glob("[0-9][0-9]_*_*/milestone.yaml")))


def _read(course: Course, folder: Path) -> Milestone:
    path = folder / "milestone.yaml"
    number, year, name = folder.name.split("_", maxsplit=2)
    with described_in(path) as fields:
        milestone = Milestone(
            root=course.root,
            folder=folder,
            number=int(fields["number"]),
            year=int(fields["year"]),
            name=name,
            title=str(fields["title"]),
            about=str(fields["about"]),
            prerequisites=tuple(int(n) for n in fields["prerequisites"]),
            data=tuple(str(known) for known in fields["data"]),
            figures=tuple(str(file) for file in fields["figures"]),
        )
    if (f"{milestone.number:02d}", str(milestone.year)) != (number, year):
        raise TitoError(
            f"milestone.yaml says {milestone.number} and {milestone.year}, the folder {number} and {year}",
            place=str(path),
        )
    return milestone


def find(course: Course, query: str) -> Milestone:
    """The milestone that ``query`` names: a number, a name or both (``1``, ``perceptron``, ``01_1957_perceptron``).

    Raises
    ------
    TitoError
        If there is none; it lists those that exist.
    """
    wanted = query.strip().rstrip("/")
    known = milestones(course)
    for milestone in known:
        if wanted in (milestone.name, milestone.slug) or (wanted.isdecimal() and int(wanted) == milestone.number):
            return milestone
    names = ", ".join(milestone.slug for milestone in known) or "none in this course"
    raise TitoError(f"there is no milestone {query!r}", next_step=f"milestones are: {names}")


def missing_data(milestone: Milestone) -> str:
    """The first data set that ``milestone`` cannot do without and that is not on this machine; empty if all are."""
    return next((name for name in milestone.data if find_data(data_set(name)) is None), "")


def state(course: Course, milestone: Milestone, progress: Progress, result: Result | None) -> State:
    """How far ``milestone`` is; one that was reached once stays so."""
    if result and result.reached_at:
        return "reached"
    if missing_prerequisite(course, milestone, progress):
        return "locked"
    if result:
        return "missed"
    return "no data" if missing_data(milestone) else "ready"


def ready_to_run(course: Course, progress: Progress) -> Milestone | None:
    """The first milestone that nothing stands in the way of and that has never been run."""
    return next(
        (item for item in milestones(course) if state(course, item, progress, read_result(item.results)) == "ready"),
        None,
    )
