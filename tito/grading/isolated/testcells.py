"""Test cells, run in this process: the names that they see, and what their errors tell.

A name that neither a test cell nor Python itself gives is looked up on the student's side, and comes as plain data or
as a proxy. Libraries that only compute are imported here; all others, such as ``os`` and ``tempfile``, there, so that
their files and settings are those of the student's code.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import linecache
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, ModuleType
from typing import Any
from unittest import mock

import numpy as np

from tito import testing
from tito.grading.isolated.ledger import MirrorDict, MirrorList
from tito.grading.isolated.plan import names_of
from tito.grading.isolated.proxy import Proxy, class_of, is_callable
from tito.grading.isolated.session import Session, StudentError, printable
from tito.outcome import Place

# the libraries that tests use in this process
_HERE = frozenset(
    """
    __future__ abc base64 bisect collections contextlib dataclasses decimal enum fractions functools hashlib heapq io
    itertools json math numpy operator random re statistics string struct textwrap tito types typing unicodedata zlib
    """.split()  # noqa: SIM905
)
_MOST_SHOWN = 20_000  # characters of an error's message


@dataclass(frozen=True)
class Failure:
    """Why a cell failed, and the lines of the notebook that it came through, the outermost first."""

    ename: str
    evalue: str
    places: tuple[Place, ...]


class TestCells:
    """The namespace of a notebook's tests, which later tests share with earlier ones."""

    __test__ = False  # it is none of pytest's

    def __init__(self, course_names: frozenset[str], seed: bytes, cpu_seconds: Callable[[], float]) -> None:
        """
        Parameters
        ----------
        course_names
            What the cells of the release define: these names win over Python's own, such as ``max``.
        seed
            What the random numbers of the tests are drawn from; a student must not know it.
        cpu_seconds
            The time that the student's process has worked.
        """
        self.seed = seed
        self.session: Session | None = None
        self.names = _Names(self._there, course_names)
        self.names["__builtins__"] = {
            **vars(builtins),
            "__import__": self._import,
            "callable": is_callable,
            "open": lambda *args, **kwargs: self._ask(open, *args, named=kwargs),
            "type": _TypeOf(),
        }
        self.time = _time_with(cpu_seconds)

    def run(self, cell_id: str, source: str) -> Failure | None:
        """Run a test cell; what failed, or None.

        Raises
        ------
        WorkerLostError
            If the student's process cannot be asked any more.
        """
        filename = file_of(cell_id)
        assert self.session is not None
        self.session.trace.texts[filename] = source
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        self.names.found.clear()
        try:
            with self._at_work(cell_id):
                exec(_compiled(source, filename), self.names)
        except Exception as error:
            return failure(error)
        finally:
            self.session.forget_test()
        return None

    def withhold(self, source: str) -> None:
        """From now on never look up on the student's side what the test cell ``source`` binds, or should have."""
        self.names.withheld |= names_of(source).binds

    def run_imports(self, source: str) -> None:
        """Import what a cell of the release imports, as far as tests get it from this process.

        It must not be a cell of the student's, who could import something under the name of what the tests use.
        """
        for statement in imports_of(source):
            module = statement.split()[1].split(".")[0]
            if module in _HERE:
                exec(statement, self.names)

    @contextmanager
    def _at_work(self, cell_id: str) -> Iterator[None]:
        """Let ``close`` see what student code changes, and random numbers be the same whenever it is graded again."""
        drawn = 0
        default_rng = np.random.default_rng

        def seeded(seed: Any = None) -> np.random.Generator:
            nonlocal drawn
            if seed is not None:
                return default_rng(seed)
            drawn += 1
            secret = hashlib.sha256(b"%b %b %d" % (self.seed, cell_id.encode(), drawn)).digest()
            return default_rng(int.from_bytes(secret))

        assert self.session is not None
        patched = mock.patch.object
        with patched(testing, "look", self.session.look), patched(np.random, "default_rng", seeded), np.errstate():
            yield

    def _ask(self, *call: Any, **options: Any) -> Any:
        assert self.session is not None
        return self.session.call(*call, **options)

    def _there(self, name: str) -> Any:
        try:
            return self._ask("global", name, state=True)
        except StudentError:
            raise KeyError(name) from None

    def _import(
        self,
        name: str,
        names: Mapping[str, object] | None = None,
        local: Mapping[str, object] | None = None,
        wanted: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        top = name.split(".")[0]
        if name == "time":
            return self.time
        if top in _HERE:
            return builtins.__import__(name, names, local, wanted or (), level)
        module = self._ask("import", name)
        return module if wanted or name == top else self._ask("import", top)


class _Names(dict[str, Any]):
    """The tests' own names; what is none of them, and none of Python's, is asked for on the student's side.

    ``withheld`` are the names that the tests so far should have bound: where a test cell did not get that far, its
    helpers are missing, and the student's are not taken for them.
    """

    def __init__(self, there: Callable[[str], Any], course_names: frozenset[str]) -> None:
        super().__init__(__name__="__main__")
        self.there = there
        self.course_names = course_names
        self.found: dict[str, Any] = {}  # in this cell; objects only, since plain data may change
        self.withheld: frozenset[str] = frozenset()

    def __missing__(self, name: str) -> Any:
        is_pythons = hasattr(builtins, name) and name not in self.course_names
        if is_pythons or name in self.withheld:
            raise KeyError(name)
        if name in self.found:
            return self.found[name]
        value = self.there(name)
        if isinstance(value, Proxy | type):
            self.found[name] = value
        return value


class _TypeOf:
    """The tests' ``type``: of a proxy it tells the class of the object that it stands for."""

    def __call__(self, value: Any, *rest: Any) -> Any:
        if rest:
            return type(value, *rest)
        kind = class_of(value)
        return list if kind is MirrorList else dict if kind is MirrorDict else kind

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(value, type)


def _time_with(cpu_seconds: Callable[[], float]) -> ModuleType:
    """The module ``time``, where ``process_time`` counts what the student's process does too."""
    made = ModuleType("time")
    made.__dict__.update(vars(time))
    made.process_time = lambda: time.process_time() + cpu_seconds()  # type: ignore[attr-defined]
    return made


def file_of(cell_id: str) -> str:
    """The name by which tracebacks call a cell."""
    return f"<cell {cell_id}>"


@lru_cache(1000)
def _compiled(source: str, filename: str) -> CodeType:
    return compile(source, filename, "exec", dont_inherit=True)


@lru_cache(1000)
def imports_of(source: str) -> list[str]:
    """The import statements of a cell that can be read."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return []
    return [
        ast.unparse(ast.Import([name]) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, [name], 0))
        for node in body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    ]


def failure(error: BaseException) -> Failure:
    """What a test, or a cell of the student's, failed with."""
    here = ((frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__))
    places = [
        Place(name.removeprefix("<cell ")[:-1], line)
        for name, line in (*here, *getattr(error, "places", ()))
        if name.startswith("<cell ")
    ]
    text = printable(error)
    short = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]} ..."
    return Failure(type(error).__name__, short, tuple(places))
