"""A class of attackers, the clumsy and the unlucky, with honest students before and after them, graded at once."""

from __future__ import annotations

import compileall
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from tests.attacks.corpus import EVERY, Entry, Stock, entries
from tests.preloaded import PRELOADED
from tito.course import Course, Module
from tito.grading.directory import Directory
from tito.outcome import is_test
from tito.source import code_cells, grade_info, read_notebook, split_secret

REPOSITORY = Path(__file__).parents[2]
LIMITS = {"cell_seconds": 2, "notebook_seconds": 12}
PATIENT = {"cell_seconds": 20, "notebook_seconds": 120}  # for whom a busy machine was too slow
CANARIES = ("aa_canary", "zz_canary")  # the first and the last in the class, who solved everything
ODD_NAMES = ("[x]", "two words", "ünï cödé", "-rf", "\x1b[2Jred", "<b>bold<b>", "{curly}", "star*")
_COPIED = ("settings.ini", "pyproject.toml", "constraints.txt", "LICENSE", "README.md", "modules", "tinytorch", "tito")


@dataclass
class Earned:
    """What the gradebook holds of a submission: the points of each test, and what no test can have given."""

    tests: dict[str, float] = field(default_factory=dict)
    by_hand: float = 0.0
    essays: tuple[str, ...] = ()
    problem: str = "not in the gradebook"
    late: bool = False  # a cell was stopped for the time that it took


@dataclass
class Verdict:
    """How a submission was graded, against how it should be; ``complaints`` is empty where that is the same."""

    name: str
    unearned: float = 0.0
    lost: float = 0.0
    complaints: list[str] = field(default_factory=list)


@dataclass
class ClassRun:
    """A class that was graded."""

    directory: Directory
    seconds: float
    screen: str
    earned: dict[tuple[str, str], Earned]


def make_tree(root: Path) -> Course:
    """An author's tree with the repository's modules, the careless one of this folder, and short limits."""
    root.mkdir(parents=True)
    no_cache = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in _COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=no_cache)
        else:
            shutil.copy(source, root / name)
    compileall.compile_dir(root / "tito", quiet=1)
    weak = shutil.copytree(Path(__file__).with_name("weak"), root / "modules" / "90_weak")
    (weak / "weak_dev.txt").rename(weak / "weak_dev.py")  # it is no Python of ours, and not to be linted
    _set_limits(root, LIMITS)
    return Course(root)


def _set_limits(root: Path, limits: dict[str, int]) -> None:
    settings = root / "settings.ini"
    lines = settings.read_text(encoding="utf-8").splitlines()
    for key, value in limits.items():
        lines = [f"{key} = {value}" if line.startswith(f"{key} =") else line for line in lines]
    settings.write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_class(course: Course, root: Path, chosen: Sequence[Entry]) -> Directory:
    """A course directory with the submissions of ``chosen``, of honest students, and of some with odd names."""
    modules = [course.module(nn) for nn in sorted({entry.nn for entry in chosen} | {"12"})]
    for command in (["init", str(root)], ["generate", *(module.nn for module in modules), "--course", str(root)]):
        done = tito(course, *command)
        assert done.returncode == 0, done.stderr
    for module in modules:
        names = CANARIES + (ODD_NAMES if module.nn == "12" else ())
        honest = Entry("honest", "", "", "accident", module.nn, "solved", frozenset(), frozenset(), True, "right", id)
        for name in names:
            replace(honest, name=name).hand_in(course).write(root / "submitted" / name / module.slug)
    for entry in chosen:
        made = entry.hand_in(course)
        made.write(root / "submitted" / entry.name / made.module.slug)
    return Directory.open(root)


def grade_class(directory: Directory, *, timeout: float = 600) -> ClassRun:
    """Grade everything in ``submitted/`` by ``tito nbgrader autograde``, and read the gradebook."""
    begin = time.monotonic()
    done = tito(
        directory.course, "autograde", "--json", "--jobs", "4", "--course", str(directory.root), timeout=timeout
    )
    seconds = time.monotonic() - begin
    return ClassRun(directory, seconds, done.stdout + done.stderr, _earned(directory, done.stdout))


def give_time(run: ClassRun, chosen: Sequence[Entry]) -> None:
    """Grade those again, with more time, who lost points that they are owed and whose cells were stopped as too slow.

    The limits are short for those who use them up on purpose, and a busy machine lets others do so too.
    """
    course = run.directory.course
    known = {(course.module(entry.nn).slug, entry.name): entry for entry in [*chosen, *honest_entries(course, run)]}
    owed = [key for key, entry in known.items() if _is_owed_time(judge(entry, course, run.earned.get(key)), run, key)]
    _set_limits(course.root, PATIENT)
    for module, student in owed:
        again = ("autograde", "--json", "--force", module, "--student", student, "--course", str(run.directory.root))
        done = tito(course, *again, timeout=600)
        key = (module, student)
        run.earned[key] = _earned(run.directory, done.stdout)[key]
    _set_limits(course.root, LIMITS)


def _is_owed_time(verdict: Verdict, run: ClassRun, key: tuple[str, str]) -> bool:
    return verdict.lost > 0 and key in run.earned and run.earned[key].late


def _earned(directory: Directory, printed: str) -> dict[tuple[str, str], Earned]:
    """What everyone earned, and what autograde ``printed`` of it."""
    told = _told(printed)
    earned = read_earned(directory)
    for key, one in earned.items():
        one.problem = told[key]["problem"] if key in told else "not in what autograde printed"
        one.late = bool(key in told and told[key]["findings"]["timeouts"])
    return earned


def tito(course: Course, *args: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run an instructor's command of the tree as a person would."""
    own = {"PYTHONPATH": str(course.root), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"}
    return PRELOADED.run("tito", ["nbgrader", *args], cwd=course.root, env=os.environ | own, timeout=timeout)


def _told(printed: str) -> dict[tuple[str, str], dict[str, Any]]:
    try:
        return {(one["module"], one["student"]): one for one in json.loads(printed)["submissions"]}
    except (ValueError, KeyError, TypeError):
        return {}


def read_earned(directory: Directory) -> dict[tuple[str, str], Earned]:
    """What everyone earned, by module and student."""
    found: dict[tuple[str, str], Earned] = {}
    with directory.gradebook() as gradebook:
        for assignment in gradebook.assignments:
            tests = test_points(directory.course.module(assignment.name))
            for submission in assignment.submissions:
                grades = [grade for notebook in submission.notebooks for grade in notebook.grades]
                found[assignment.name, submission.student_id] = Earned(
                    tests={grade.name: float(grade.auto_score or 0) for grade in grades if grade.name in tests},
                    by_hand=sum(float(grade.manual_score or 0) + float(grade.extra_credit or 0) for grade in grades),
                    essays=tuple(grade.name for grade in grades if grade.name not in tests),
                )
    return found


@cache
def test_points(module: Module) -> dict[str, float]:
    """The points of each test of a module."""
    cells = read_notebook(module).cells
    return {grade_info(cell)["grade_id"]: float(grade_info(cell)["points"]) for cell in cells if is_test(cell)}


def judge(entry: Entry, course: Course, earned: Earned | None) -> Verdict:
    """Compare what ``entry`` earned with what it may and what it must."""
    points = test_points(course.module(entry.nn))
    verdict = Verdict(entry.name)
    if earned is None:
        verdict.complaints.append("it is not in the gradebook")
        return verdict
    costs = set(points) if EVERY in entry.costs else set(entry.costs)
    unsure = set(points) if EVERY in entry.unsure else set(entry.unsure)
    assert costs | unsure <= set(points), f"{entry.name} names tests that {entry.nn} has not"
    for name in points:
        got = earned.tests.get(name, 0.0)
        verdict.unearned += max(0.0, got - (0 if name in costs else points[name]))
        if entry.kind != "attack" and name not in costs | unsure:
            verdict.lost += max(0.0, points[name] - got)
            verdict.complaints += [f"lost {name}"] * (got < points[name])
        verdict.complaints += [f"earned {name}"] * (name in costs and got > 0)
    verdict.unearned += max(0.0, earned.by_hand)
    verdict.complaints += [f"{earned.by_hand:g} points by hand"] * (earned.by_hand != 0)
    verdict.complaints += ["rows are missing"] * (set(earned.tests) != set(points))
    if bool(earned.problem) == entry.graded:
        verdict.complaints.append(f"not graded: {earned.problem}" if earned.problem else "graded, and should not be")
    return verdict


def honest_entries(course: Course, run: ClassRun) -> list[Entry]:
    """The students in ``run`` that belong to no entry: they solved everything, and must have it all."""
    names = {entry.name for entry in entries()}
    return [
        Entry(
            student,
            "honest",
            "",
            "accident",
            course.module(slug).nn,
            "solved",
            frozenset(),
            frozenset(),
            True,
            "right",
            id,
        )
        for slug, student in run.earned
        if student not in names
    ]


def figures(verdicts: Sequence[Verdict], run: ClassRun) -> str:
    """The figures of a class, in a line."""
    unearned, lost = sum(one.unearned for one in verdicts), sum(one.lost for one in verdicts)
    stopped = int(any(one.complaints for one in verdicts if one.name in CANARIES))
    return (
        f"{len(verdicts)} tried, {unearned:g} unearned points, {lost:g} honest points lost, {stopped} classes stopped "
        f"({sum(bool(one.complaints) for one in verdicts)} not as expected; {run.seconds:.0f} s)"
    )


def hidden_lines(module: Module) -> set[str]:
    """Lines of the module's hidden tests that stand nowhere else in its notebook."""
    hidden: set[str] = set()
    public: set[str] = set()
    for cell in code_cells(read_notebook(module)):
        secret, open_lines = split_secret(cell.source)
        hidden |= {line.text.strip() for line in secret if line.region == "HIDDEN TESTS"}
        public |= {line.text.strip() for line in secret if line.region != "HIDDEN TESTS"}
        public |= {line.strip() for line in open_lines}
    return {line for line in hidden - public if len(line) > 12}


def survivors(mark: str = "97.531") -> list[int]:
    """The processes that an entry left behind to be found."""
    return [one.pid for one in psutil.process_iter(["cmdline"]) if mark in (one.info["cmdline"] or [])]


def stock_outcomes(
    chosen: Sequence[Entry], directory: Directory, work: Path, *, seconds: float = 120
) -> dict[str, tuple[Stock, str]]:
    """What nbgrader as it comes makes of ``chosen``, in a copy ``work`` of the course directory; and in words, why.

    The entries are of one module, and graded by one program: one that stops it should come alone.
    """
    module = directory.course.module(chosen[0].nn)
    shutil.copytree(directory.root, work, ignore=shutil.ignore_patterns("submitted", "nbgrader_config.py"))
    for name in (*(entry.name for entry in chosen), *CANARIES):
        source = directory.root / "submitted" / name / module.slug
        shutil.copytree(source, work / "submitted" / name / module.slug, symlinks=True)
        _drop_worked_examples(work / "submitted" / name / module.slug / module.notebook.name)
    config = f'c = get_config()\nc.CourseDirectory.course_id = "{directory.course.course_id}"\nc.Execute.timeout = 20\n'
    (work / "nbgrader_config.py").write_text(config, encoding="utf-8")
    status = _stock_status(directory.course, module, work, seconds)
    if status is None or status < 0 or status == 130:
        why = f"it took more than {seconds:g} s" if status is None else f"it ended by signal {-status}"
        return {entry.name: ("stops", why) for entry in chosen}
    earned = read_earned(_directory_at(directory, work))
    if (module.slug, CANARIES[1]) not in earned:
        return {entry.name: ("stops", "the last of the class was not graded") for entry in chosen}
    return {entry.name: _stock_verdict(entry, module, work, earned.get((module.slug, entry.name))) for entry in chosen}


def _stock_status(course: Course, module: Module, work: Path, seconds: float) -> int | None:
    """How nbgrader's program ended; None if it did not in time."""
    with (
        (work / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "nbgrader", "autograde", module.slug],
            cwd=work,
            env=os.environ | {"PYTHONPATH": str(course.root), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        ) as program,
    ):
        try:
            status = program.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            return None
    time.sleep(1)  # for what comes after the end
    return status


def _stock_verdict(entry: Entry, module: Module, work: Path, earned: Earned | None) -> tuple[Stock, str]:
    graded = (work / "autograded" / entry.name / module.slug).is_dir()
    if earned is not None:
        earned.problem = "" if graded else "refused"
    verdict = judge(replace(entry, unsure=frozenset()), Course(module.root), earned)
    words = "; ".join(verdict.complaints)
    if verdict.unearned:
        return "gains", words
    return ("loses" if verdict.lost else "right") if graded else "fails", words


def _drop_worked_examples(path: Path) -> None:
    """Take out the cells that no test needs and that take most of the time; files that are no notebook stay."""
    if path.is_symlink():
        return
    try:
        content = json.loads(path.read_bytes())
        content["cells"] = [cell for cell in content["cells"] if not _is_worked_example(cell)]
        path.write_text(json.dumps(content), encoding="utf-8")
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        pass


def _is_worked_example(cell: dict[str, Any]) -> bool:
    is_ours = re.fullmatch(r"[a-z]+-\d{3}", str(cell.get("id", "")))
    source = "".join(cell["source"])
    return bool(is_ours and cell["cell_type"] == "code" and not source.startswith("#|"))


def _directory_at(directory: Directory, root: Path) -> Directory:
    config = deepcopy(directory.config)
    config.CourseDirectory.root = str(root)
    return Directory(root, directory.course, config)


def select(names: Iterable[str]) -> list[Entry]:
    """The entries of these names or families; all of them if none is named."""
    wanted = set(names)
    chosen = [one for one in entries() if not wanted or {one.name, one.family} & wanted]
    known = {name for one in entries() for name in (one.name, one.family)}
    assert wanted <= known, f"there is no entry or family {', '.join(sorted(wanted - known))}"
    return chosen
