"""Every attack and every accident of the corpus, graded as one class: what was learned counts, and nothing else."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.attacks import grading
from tests.attacks.conftest import FIGURES
from tests.attacks.corpus import Entry, Stock, entries
from tito.course import Course

pytestmark = pytest.mark.xdist_group("attacks")

ENTRIES = entries()
# of every way to gain, or to lose, where nothing protects: that it works there, or its failing here would mean nothing
UNPROTECTED: dict[str, Stock] = {
    "imports_the_reference": "gains",
    "blanks_the_tests_by_an_input_transformer": "gains",
    "writes_points_at_exit": "gains",
    "warns": "loses",
    "exits_in_a_cell_of_its_own": "fails",
}
# pages that hold a script, escape codes or a hidden test if anything goes wrong
READ = (
    "sends_the_browser_a_script",
    "holds_outputs_of_every_kind",
    "writes_html_into_an_essay",
    "knows_the_visible_tests",
)


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return grading.make_tree(tmp_path_factory.mktemp("attacks") / "author")


@pytest.fixture(scope="module")
def handed_in(course: Course) -> grading.Directory:
    """The class's submissions, not graded yet."""
    return grading.make_class(course, course.root.parent / "handed_in", ENTRIES)


@pytest.fixture(scope="module")
def run(course: Course, handed_in: grading.Directory) -> grading.ClassRun:
    """The class, graded."""
    root = course.root.parent / "grading"
    shutil.copytree(handed_in.root, root, symlinks=True)
    graded = grading.grade_class(grading.Directory.open(root))
    grading.give_time(graded, ENTRIES)
    return graded


def judged(entry: Entry, course: Course, run: grading.ClassRun) -> grading.Verdict:
    return grading.judge(entry, course, run.earned.get((course.module(entry.nn).slug, entry.name)))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_what_was_learned_counts_and_nothing_else(entry: Entry, course: Course, run: grading.ClassRun) -> None:
    assert judged(entry, course, run).complaints == [], entry.story


def test_nobody_else_loses_a_point(
    course: Course, run: grading.ClassRun, record_property: pytest.RecordProperty
) -> None:
    honest = grading.honest_entries(course, run)
    verdicts = [judged(entry, course, run) for entry in [*ENTRIES, *honest]]
    record_property(FIGURES, grading.figures(verdicts, run))
    assert len(honest) == len(grading.ODD_NAMES) + 2 * len({entry.nn for entry in ENTRIES})
    assert [one for one in verdicts[len(ENTRIES) :] if one.complaints] == []


def test_nothing_survives_the_grading(run: grading.ClassRun) -> None:
    assert grading.survivors() == []


def test_no_terminal_gets_what_students_wrote(course: Course, run: grading.ClassRun) -> None:
    for command in ("autograde", "report"):
        done = grading.tito(
            course, command, "12", "--student", "sends_the_terminal_escape_codes", "--course", str(run.directory.root)
        )
        assert done.returncode == 0, done.stderr
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", done.stdout + done.stderr)
    assert "Traceback" not in run.screen


@pytest.mark.parametrize("student", READ)
def test_feedback_holds_no_script_and_no_hidden_test(student: str, course: Course, run: grading.ClassRun) -> None:
    done = grading.tito(course, "feedback", "12", "--student", student, "--course", str(run.directory.root))
    assert done.returncode == 0, done.stdout + done.stderr
    page = run.directory.feedback(course.module("12"), student).read_text(encoding="utf-8")
    assert not re.search(r"<script>document|onerror=.document|srcdoc=.<script|href=.javascript:|\x1b", page)
    assert [line for line in grading.hidden_lines(course.module("12")) if line in page] == []


def test_unprotected_they_win(course: Course, handed_in: grading.Directory, tmp_path: Path) -> None:
    tried = [entry for entry in ENTRIES if entry.name in UNPROTECTED]
    outcomes = grading.stock_outcomes(tried, handed_in, tmp_path / "stock")
    assert {name: found for name, (found, _) in outcomes.items()} == UNPROTECTED
