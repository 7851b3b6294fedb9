"""Auditing modules: the variants of a notebook that its graded cells must fail, and what became of them."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tito
from tito.atomic import write_atomically
from tito.audit import lazy
from tito.audit.lint import Finding
from tito.audit.mutants import mutants
from tito.audit.watch import watched
from tito.course import Course, Module
from tito.errors import TitoError
from tito.rules import broken_rules
from tito.source import code_cells, grade_info, read_notebook
from tito.staging import stage_package
from tito.student import student_notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode

PASSING_SCORE = 0.95
EQUIVALENT = Path("tests", "equivalent_mutants.yaml")
ACCEPTED = Path("tests", "accepted_lint.yaml")

Progress = Callable[[int, int], None]  # called with how many variants are done, and how many there are

_EXPORTED = re.compile(r"^#\|\s*export", re.MULTILINE)
_Reviewed = set[tuple[str, ...]]  # entries of a reviewed list
_DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
_SHOWN = 80  # characters of a refused place
_TOOL = ("audit/*.py", "rules.py", "source.py", "student.py", "testing.py")  # what an outcome depends on


@dataclass(frozen=True)
class JudgedMutant:
    """A mutant of an exercise; ``before`` and ``after`` are the lines that differ."""

    exercise: str
    line: int
    operator: str
    before: str
    after: str
    diff: str
    killed: bool


@dataclass(frozen=True)
class Report:
    """What the audit of a module found.

    ``problems`` are graded cells that fail with the solution, pass without it or break a rule of the lint, and entries
    of the two reviewed lists that match nothing.
    """

    module: str
    killed: int
    equivalent: int
    survivors: tuple[JudgedMutant, ...]
    problems: tuple[str, ...]
    cached: bool

    @property
    def score(self) -> float:
        """Killed mutants of those that are not equivalent; 1 if there are none."""
        judged = self.killed + len(self.survivors)
        return self.killed / judged if judged else 1.0

    @property
    def ok(self) -> bool:
        return not self.problems and self.score >= PASSING_SCORE


@dataclass(frozen=True)
class _Judgement:
    """What is kept of an audit: everything but what the reviewed lists say about it."""

    problems: list[str]
    mutants: list[JudgedMutant]
    findings: list[Finding]


@dataclass(frozen=True)
class _Cell:
    id: str
    source: str
    is_test: bool
    is_exercise: bool


@dataclass(frozen=True)
class _Variant:
    """Cells ``first`` to ``last`` with other sources in the place of some; see ``worker``."""

    first: int
    last: int
    changes: dict[int, str]
    answer: str = ""
    stop_at_failure: bool = False
    must_fail: tuple[int, ...] = ()  # the tests that must each fail; if none is named, any one will do
    what: str = ""  # what the student does who passes
    mutant: JudgedMutant | None = field(default=None, compare=False)


def audit(course: Course, module: Module, progress: Progress) -> Report:
    """Audit ``module``, or tell what an earlier audit of the same source with the same tool found.

    Raises
    ------
    TitoError
        If there is no source to audit, the list of equivalent mutants cannot be read, or the audit itself fails.
    """
    _refuse_workspace(course)
    equivalent, accepted = _equivalent(course, module), _accepted(course, module)
    kept = course.root / "build" / "audit" / f"{module.slug}.json"
    with _staged(course, module) as package:
        key = _key(module, package)
        judgement = _read(kept, key)
        cached = judgement is not None
        if judgement is None:
            judgement = _judge(course, module, package, progress)
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, json.dumps({"key": key, **asdict(judgement)}))
    return _report(module, judgement, equivalent, accepted, cached)


def lint(course: Course, module: Module) -> tuple[str, ...]:
    """What breaks the rules for sources, or those of the lint for graded cells, or cannot be run with the solution.

    Raises
    ------
    TitoError
        As ``audit``.
    """
    _refuse_workspace(course)
    accepted = _accepted(course, module)
    notebook = read_notebook(module)
    with _staged(course, module) as package:
        judgement = _lint(course, module, _Plan(module, notebook), package)
    return (*broken_rules(course, module, notebook), *judgement.problems, *_refused(judgement, accepted))


def _refuse_workspace(course: Course) -> None:
    if course.is_workspace:
        raise TitoError("this is a student's workspace: there are no solutions to audit", place=str(course.root))


@contextmanager
def _staged(course: Course, module: Module) -> Iterator[Path]:
    """A folder with the package of the modules before ``module``, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="tito-audit-", ignore_cleanup_errors=True) as folder:
        yield stage_package(course, module, Path(folder))


def _key(module: Module, package: Path) -> str:
    """A digest of everything that the outcome depends on: source, modules before it, tool, Python and NumPy."""
    tool = Path(tito.__file__).parent
    files = [module.source, *sorted(package.rglob("*.py"))]
    files += [path for pattern in _TOOL for path in sorted(tool.glob(pattern))]
    digest = hashlib.sha256(f"{sys.version} {version('numpy')}".encode())
    for path in files:
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def _read(kept: Path, key: str) -> _Judgement | None:
    """The judgement in the file ``kept``, if it is there, whole, and of this key."""
    try:
        fields = json.loads(kept.read_bytes())
        if fields["key"] != key:
            return None
        return _Judgement(
            fields["problems"],
            [JudgedMutant(**mutant) for mutant in fields["mutants"]],
            [Finding(**finding) for finding in fields["findings"]],
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _equivalent(course: Course, module: Module) -> _Reviewed:
    """The mutants of ``module`` that change nothing, by exercise and lines before and after."""
    return _reviewed(course, module, EQUIVALENT, "equivalent mutants", ("exercise", "before", "after"))


def _accepted(course: Course, module: Module) -> _Reviewed:
    """The places that the lint misjudges, by cell and code."""
    return _reviewed(course, module, ACCEPTED, "accepted places", ("cell", "code"))


def _reviewed(course: Course, module: Module, name: Path, what: str, fields: tuple[str, ...]) -> _Reviewed:
    """The entries of a reviewed list that are about ``module``; each has a reason."""
    import yaml

    path = course.root / name
    if not path.is_file():
        return set()
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
        if any(not entry["reason"].strip() for entry in entries):
            raise ValueError("an entry has no reason")
        return {tuple(entry[field].strip() for field in fields) for entry in entries if entry["module"] == module.slug}
    except (yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise TitoError(
            f"the list of {what} cannot be read: {type(error).__name__}: {error}",
            place=str(path),
            next_step=f"each entry needs module, {', '.join(fields)} and reason",
        ) from None


def _report(module: Module, judgement: _Judgement, equivalent: _Reviewed, accepted: _Reviewed, cached: bool) -> Report:
    def listed(mutant: JudgedMutant) -> tuple[str, str, str]:
        return mutant.exercise, mutant.before, mutant.after

    alive = [mutant for mutant in judgement.mutants if not mutant.killed]
    stale = equivalent - {listed(mutant) for mutant in judgement.mutants}
    return Report(
        module=module.slug,
        killed=len(judgement.mutants) - len(alive),
        equivalent=sum(listed(mutant) in equivalent for mutant in alive),
        survivors=tuple(mutant for mutant in alive if listed(mutant) not in equivalent),
        problems=(
            *judgement.problems,
            *_refused(judgement, accepted),
            *(f"{EQUIVALENT.as_posix()}: no mutant of {e} turns `{b}` into `{a}`" for e, b, a in sorted(stale)),
        ),
        cached=cached,
    )


def _refused(judgement: _Judgement, accepted: _Reviewed) -> Iterator[str]:
    """The lint's findings that are not accepted, and what is accepted for no reason."""
    for found in judgement.findings:
        if (found.cell, found.code) not in accepted:
            yield f"{found.cell}, line {found.line} of the cell: `{_one_line(found.code)}`: {found.problem}"
    for cell, code in sorted(accepted - {(found.cell, found.code) for found in judgement.findings}):
        yield f"{ACCEPTED.as_posix()}: nothing is wrong in {cell} with `{_one_line(code)}`"


def _one_line(code: str) -> str:
    line = " ".join(code.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."


def _judge(course: Course, module: Module, package: Path, progress: Progress) -> _Judgement:
    notebook = read_notebook(module)
    plan = _Plan(module, notebook)
    variants = list(plan.variants())
    solved: list[str] = []
    problems: list[str] = []
    judged: list[JudgedMutant] = []
    job = _job(course, [cell.source for cell in plan.cells], plan, variants)
    for done, outcome in enumerate(_outcomes(module, job, package)):
        progress(done, len(variants))
        if outcome["variant"] < 0:
            solved = plan.failures(outcome, "with the solution")
            continue
        failed = {line["position"] for line in outcome["cells"] if line["problem"]}
        passed = {line["position"] for line in outcome["cells"]} - failed
        variant = variants[outcome["variant"]]
        noticed = outcome["died"] or any(plan.cells[position].is_test for position in failed)
        if variant.mutant:
            judged.append(JudgedMutant(**{**asdict(variant.mutant), "killed": noticed}))
        elif variant.must_fail:
            won = [plan.cells[position].id for position in variant.must_fail if position in passed]
            problems += [f"{test} is passed by a student who {variant.what}" for test in won]
        elif not noticed:
            problems.append(f"no graded cell notices a student who {variant.what}")
    judged.sort(key=lambda mutant: (mutant.line, mutant.before, mutant.after))
    linted = _Judgement([], [], []) if solved else _lint(course, module, plan, package)
    rules = broken_rules(course, module, notebook)
    return _Judgement([*rules, *solved, *linted.problems, *problems, *plan.untested()], judged, linted.findings)


def _lint(course: Course, module: Module, plan: _Plan, package: Path) -> _Judgement:
    """Run the notebook once with the solution, and its graded cells watched."""
    findings = package / "findings"
    sources = [watched(cell.id, cell.source, findings) if cell.is_test else cell.source for cell in plan.cells]
    with closing(_outcomes(module, _job(course, sources, plan, []), package)) as outcomes:
        outcome = next(outcomes, None)
    if outcome is None:
        raise TitoError("the lint failed: its process ended early", place=str(module.source))
    lines = findings.read_text(encoding="utf-8").splitlines() if findings.is_file() else []
    found = {Finding(**json.loads(line)) for line in lines}
    problems = plan.failures(outcome, "with the solution while the lint watches")
    return _Judgement(problems, [], sorted(found, key=lambda finding: (finding.cell, finding.line)))


def _job(course: Course, sources: list[str], plan: _Plan, variants: list[_Variant]) -> dict[str, Any]:
    return {
        "cells": [
            {"id": cell.id, "source": source, "is_test": cell.is_test}
            for cell, source in zip(plan.cells, sources, strict=True)
        ],
        "variants": [_as_job(number, variant) for number, variant in enumerate(variants)],
        "jobs": len(os.sched_getaffinity(0)),
        "hard_seconds": course.limits.cell_seconds,
    }


def _as_job(number: int, variant: _Variant) -> dict[str, Any]:
    names = ("first", "last", "changes", "answer", "stop_at_failure")
    return {"id": number, **{name: getattr(variant, name) for name in names}}


class _Plan:
    """A module's code cells, and what shall be tried with them."""

    def __init__(self, module: Module, notebook: NotebookNode) -> None:
        self.module = module
        self.cells = [cell for cell in map(_cell, code_cells(notebook)) if cell.source]
        stripped = {cell.id: cell.source for cell in student_notebook(notebook).cells}
        self.exercises = [position for position, cell in enumerate(self.cells) if cell.is_exercise]
        self.blank = {position: stripped[self.cells[position].id] for position in self.exercises}

    @cached_property
    def tests(self) -> tuple[int, ...]:
        return tuple(position for position, cell in enumerate(self.cells) if cell.is_test)

    def own_test(self, exercise: int) -> int | None:
        """The test that stands next below an exercise."""
        return next((position for position in self.tests if position > exercise), None)

    def untested(self) -> list[str]:
        return [f"{self.cells[p].id} has no graded cell below it" for p in self.exercises if self.own_test(p) is None]

    def failures(self, outcome: dict[str, Any], how: str) -> list[str]:
        """The cells that failed in a run of the whole notebook, and the one in which it ended."""
        failed = [(self.cells[line["position"]].id, line["problem"]) for line in outcome["cells"] if line["problem"]]
        ended = [self.cells[len(outcome["cells"])].id] if outcome["died"] else []
        return [f"{cell} fails {how}: {problem}" for cell, problem in failed] + [f"{c} never ends {how}" for c in ended]

    def variants(self) -> Iterator[_Variant]:
        if self.exercises:
            yield from self._whole_students()
        for exercise in self.exercises:
            yield from self._lazy_answers(exercise)
            yield from self._mutants(exercise)

    def _whole_students(self) -> Iterator[_Variant]:
        """Students who do the same in all exercises; every graded cell must fail."""
        first, last = self.exercises[0], len(self.cells) - 1
        yield _Variant(first, last, self.blank, must_fail=self.tests, what="writes nothing")
        answered = {position: lazy.all_lazy(self.cells[position].source) for position in self.exercises}
        for answer in lazy.ANSWERS:
            what = f"always answers {answer}"
            yield _Variant(first, last, answered, answer, must_fail=self.tests, what=what)

    def _lazy_answers(self, exercise: int) -> Iterator[_Variant]:
        """Students who are lazy in one exercise, which its graded cell must notice, or in one region of it."""
        cell, own, last = self.cells[exercise], self.own_test(exercise), len(self.cells) - 1
        regions = list(lazy.lazy_sources(cell.source))
        if regions and own is not None:
            changes = {exercise: lazy.all_lazy(cell.source)}
            for answer in lazy.ANSWERS:
                yield _Variant(exercise, own, changes, answer, must_fail=(own,), what=f"lets {cell.id} answer {answer}")
        for function, source in regions if len(regions) > 1 else ():
            for answer in lazy.ANSWERS:
                what = f"lets {function} of {cell.id} answer {answer}"
                yield _Variant(exercise, last, {exercise: source}, answer, stop_at_failure=True, what=what)

    def _mutants(self, exercise: int) -> Iterator[_Variant]:
        cell, last = self.cells[exercise], len(self.cells) - 1
        for mutant in mutants(cell.source):
            judged = JudgedMutant(
                cell.id, mutant.line, mutant.operator, mutant.before, mutant.after, mutant.diff, killed=False
            )
            yield _Variant(exercise, last, {exercise: mutant.source}, stop_at_failure=True, mutant=judged)


def _cell(cell: NotebookNode) -> _Cell:
    """A code cell; of one that neither belongs to the package nor is graded, what later cells may use: definitions."""
    info = grade_info(cell)
    is_exercise = bool(info.get("solution"))
    source = cell.source
    if not info and not _EXPORTED.search(source):
        kept: list[ast.stmt] = [node for node in ast.parse(source).body if isinstance(node, _DEFINITIONS)]
        source = ast.unparse(ast.Module(kept, []))
    return _Cell(cell.id, source, bool(info.get("grade")) and not is_exercise, is_exercise)


def _outcomes(module: Module, job: dict[str, Any], package: Path) -> Generator[dict[str, Any], None, None]:
    """What the worker says, line by line; it and its children are gone when this ends."""
    command = [sys.executable, "-P", "-m", "tito.audit.worker"]
    with subprocess.Popen(
        command,
        cwd=package,
        env=_environment(package),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as worker:
        assert worker.stdin and worker.stdout
        try:
            with worker.stdin as channel:
                json.dump(job, channel)
            for line in worker.stdout:
                outcome: dict[str, Any] = json.loads(line)
                if "error" in outcome:
                    raise TitoError(f"the audit failed: {outcome['error'].strip()}", place=str(module.source))
                yield outcome
        finally:
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)


def _environment(package: Path) -> dict[str, str]:
    """The worker's: the staged package first, then this ``tito``; one thread, since one variant runs on each core."""
    own = {
        "PYTHONPATH": os.pathsep.join([str(package), str(Path(tito.__file__).parents[1])]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(package),  # what a killed variant leaves is removed with the package
        "MPLBACKEND": "Agg",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
    return {**os.environ, **own}
