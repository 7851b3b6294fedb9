"""How the hand-written packages show ``tinytorch.core``: names are looked up in the built modules when asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_CORE = "tinytorch.core"
_PACKAGE = Path(__file__).parent


def is_built(name: str) -> bool:
    """True if the module ``name`` (``"autograd"``) has been exported to ``tinytorch/core``."""
    return (_PACKAGE / "core" / f"{name}.py").is_file()


def not_built_message(name: str) -> str:
    """What to do about a core module that is not there; empty if the course has no module of this name."""
    for folder in (_PACKAGE.parent / "modules").glob(f"[0-9][0-9]_{name}"):
        number = folder.name[:2]
        return f"{_CORE}.{name} is not built yet: finish module {number}, then run: tito module complete {number}"
    return ""


class _NotBuiltFinder:
    """The last finder that Python asks: it explains why a part of ``tinytorch.core`` is missing."""

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        message = not_built_message(name) if package == _CORE else ""
        if message:
            raise ModuleNotFoundError(message, name=fullname)
        return None


def install_not_built_finder() -> None:
    """Let a missing part of ``tinytorch.core`` say which module of the course brings it."""
    if _NotBuiltFinder not in sys.meta_path:
        after = sys.meta_path.index(PathFinder) + 1 if PathFinder in sys.meta_path else len(sys.meta_path)
        sys.meta_path.insert(after, _NotBuiltFinder)


def face(package: str, *modules: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A module-level ``__getattr__`` and ``__dir__`` (PEP 562) for ``package``: the public names of core ``modules``.

    ``from package import *`` asks the first for ``__all__``, and gets the names of the modules that are built.

    Raises
    ------
    AttributeError
        If no built module has the name; it lists those of ``modules`` that are not built yet.
    """

    def built() -> Iterator[ModuleType]:
        return (import_module(f"{_CORE}.{module}") for module in modules if is_built(module))

    def public_names() -> list[str]:
        return [name for core in built() for name in core.__all__]

    found: dict[str, ModuleType] = {}  # where a name was, so that it is sought in files only once

    def getattr_in_core(name: str) -> Any:
        if name in found:
            return getattr(found[name], name)
        if name == "__all__":
            return public_names()
        if not name.startswith("_"):
            for core in built():
                if name in core.__all__:
                    found[name] = core
                    return getattr(core, name)
        missing = [not_built_message(module) for module in modules if not (name.startswith("_") or is_built(module))]
        raise AttributeError("\n  ".join([f"module {package!r} has no attribute {name!r}", *filter(None, missing)]))

    def dir_of_package() -> list[str]:
        return sorted({*vars(sys.modules[package]), *public_names()})

    return getattr_in_core, dir_of_package
