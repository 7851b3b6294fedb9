"""The course: its settings, and the one catalogue of modules, which is the folders with their ``module.yaml``."""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from tito.errors import TitoError

SETTINGS = "settings.ini"


@dataclass(frozen=True)
class Limits:
    """What a notebook may use: seconds, bytes and more, from ``[limits]`` in settings.ini."""

    cell_seconds: int
    notebook_seconds: int
    cell_output_bytes: int
    notebook_output_bytes: int
    memory_mb: int
    threads: int
    file_mb: int


@dataclass(frozen=True)
class Module:
    """One module of the course, as its folder and ``module.yaml`` describe it."""

    root: Path
    folder: Path
    number: int
    name: str
    title: str
    part: str
    prerequisites: tuple[int, ...]
    exports: tuple[str, ...]
    hours: float

    @property
    def slug(self) -> str:
        """``12_embeddings``: the folder's name, and nbgrader's assignment."""
        return self.folder.name

    @property
    def nn(self) -> str:
        """The number as people type it: ``12``, ``02``."""
        return f"{self.number:02d}"

    @property
    def source(self) -> Path:
        """The author's percent-format source; it exists in the author's tree only."""
        return self.folder / f"{self.name}_dev.py"

    @property
    def notebook(self) -> Path:
        """The student's notebook; it exists in a workspace only."""
        return self.folder / f"{self.name}.ipynb"

    @property
    def pristine(self) -> Path:
        """The notebook as it was released; in a workspace, where students do not look."""
        return self.root / ".tito" / "release" / f"{self.slug}.ipynb"

    @property
    def import_name(self) -> str:
        """``tinytorch.core.embeddings``."""
        return f"tinytorch.core.{self.name}"

    @property
    def test_file(self) -> Path:
        """The module's tests, run on the exported file: ``tests/modules/test_12_embeddings.py``."""
        return self.root / "tests" / "modules" / f"test_{self.slug}.py"


@contextmanager
def described_in(path: Path) -> Iterator[dict[str, Any]]:
    """What the YAML file ``path`` says of the folder that it lies in, for a block that makes an object of it.

    Raises
    ------
    TitoError
        If the file is no YAML, lacks a key that the block asks for, or holds a value that the block cannot use.
    """
    import yaml

    try:
        yield yaml.safe_load(path.read_text(encoding="utf-8"))
    except KeyError as missing:
        raise TitoError(f"{path.name} has no {missing}", place=str(path), next_step=f"add the key {missing}") from None
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise TitoError(f"{path.name} cannot be read: {error}", place=str(path)) from None


def _read_module(root: Path, folder: Path) -> Module:
    path = folder / "module.yaml"
    number, _, name = folder.name.partition("_")
    with described_in(path) as fields:
        module = Module(
            root=root,
            folder=folder,
            number=int(fields["number"]),
            name=name,
            title=str(fields["title"]),
            part=str(fields["part"]),
            prerequisites=tuple(int(n) for n in fields["prerequisites"]),
            exports=tuple(str(e) for e in fields["exports"]),
            hours=float(fields["hours"]),
        )
    if module.number != int(number):
        raise TitoError(f"module.yaml says number {module.number}, the folder says {number}", place=str(path))
    return module


@dataclass(frozen=True)
class Course:
    """A course tree: the author's repository, or a workspace that ``tito release`` wrote."""

    root: Path

    @classmethod
    def locate(cls, start: Path | None = None) -> Course:
        """The course that ``start`` (by default the current folder) lies in.

        Raises
        ------
        TitoError
            If neither the folder nor any above it holds a course's settings.ini.
        """
        try:
            here = (start or Path.cwd()).resolve()
        except FileNotFoundError:
            raise TitoError(
                "the current folder has been deleted", next_step="cd into the folder of your course"
            ) from None
        for folder in (here, *here.parents):
            settings = folder / SETTINGS
            if settings.is_file() and "[course]" in settings.read_text(encoding="utf-8", errors="replace"):
                return cls(folder)
        raise TitoError(
            "this folder is not a TinyTorch course",
            place=str(here),
            next_step="cd into the folder of your course (the one with settings.ini and modules/), and try again",
        )

    @cached_property
    def settings(self) -> configparser.ConfigParser:
        path = self.root / SETTINGS
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError, configparser.Error) as error:
            raise TitoError(f"the settings cannot be read: {error}", place=str(path)) from None
        return parser

    def setting(self, section: str, key: str) -> str:
        try:
            return self.settings.get(section, key)
        except configparser.Error:
            raise TitoError(
                f"settings.ini has no {key} in [{section}]",
                place=str(self.root / SETTINGS),
                next_step=f"add a line `{key} = ...` below [{section}]",
            ) from None

    @property
    def course_id(self) -> str:
        return self.setting("course", "course_id")

    @property
    def is_workspace(self) -> bool:
        """True in a student's workspace, False in the author's tree."""
        return self.setting("course", "kind") == "workspace"

    @property
    def library(self) -> Path:
        """The package that the modules are exported to: ``<root>/tinytorch``."""
        return self.root / self.setting("nbdev", "lib_path")

    @property
    def build(self) -> Path:
        """Where notebooks made from the sources, and other intermediate files, go."""
        return self.root / self.setting("nbdev", "nbs_path")

    @cached_property
    def limits(self) -> Limits:
        def whole(key: str) -> int:
            text = self.setting("limits", key)
            if not text.isdecimal() or int(text) == 0:
                raise TitoError(
                    f"{key} = {text} in [limits] is not a positive whole number", place=str(self.root / SETTINGS)
                )
            return int(text)

        return Limits(*(whole(key) for key in Limits.__dataclass_fields__))

    @cached_property
    def modules(self) -> tuple[Module, ...]:
        """Every module, by number."""
        folder = self.root / self.setting("course", "modules_path")
        found = sorted(path.parent for path in folder.glob("[0-9][0-9]_*/module.yaml"))
        if not found:
            raise TitoError("the course has no modules", place=str(folder))
        modules = tuple(_read_module(self.root, path) for path in found)
        for one, other in pairwise(modules):
            if one.number == other.number:
                raise TitoError(
                    f"two modules have the number {one.nn}: {one.slug} and {other.slug}",
                    place=str(folder),
                    next_step="if one of them is a copy, move it out of this folder",
                )
        return modules

    def exported(self, module: Module) -> Path:
        """The generated file of ``module``: ``tinytorch/core/embeddings.py``."""
        return self.library / "core" / f"{module.name}.py"

    def module(self, query: str) -> Module:
        """The module that ``query`` names: a number, a name or both (``12``, ``embeddings``, ``12_embeddings``).

        Raises
        ------
        TitoError
            If there is none; it lists those that exist.
        """
        wanted = query.strip().rstrip("/")
        for module in self.modules:
            if wanted in (module.name, module.slug) or (wanted.isdecimal() and int(wanted) == module.number):
                return module
        near = get_close_matches(wanted, [m.name for m in self.modules] + [m.slug for m in self.modules], n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        known = ", ".join(m.slug for m in self.modules)
        raise TitoError(f"there is no module {query!r}", next_step=f"{meant}modules are: {known}")

    def by_number(self, number: int) -> Module:
        """The module with this number."""
        return self.module(str(number))

    def before(self, module: Module) -> Iterator[Module]:
        """The modules with a smaller number, in order."""
        return (other for other in self.modules if other.number < module.number)
