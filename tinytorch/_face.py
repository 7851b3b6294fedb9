"""How the hand-written packages show ``tinytorch.core``: names are looked up in the built modules when asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
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


def face(package: str, *modules: str) -> Callable[[str], Any]:
    """A module-level ``__getattr__`` (PEP 562) for ``package`` that finds public names in core ``modules``.

    Raises
    ------
    AttributeError
        If no built module has the name; it lists those of ``modules`` that are not built yet.
    """

    def getattr_in_core(name: str) -> Any:
        missing = []
        for module in modules if not name.startswith("_") else ():
            if not is_built(module):
                missing.append(not_built_message(module))
                continue
            core = import_module(f"{_CORE}.{module}")
            if name in core.__all__:
                return getattr(core, name)
        raise AttributeError("\n  ".join([f"module {package!r} has no attribute {name!r}", *filter(None, missing)]))

    return getattr_in_core
