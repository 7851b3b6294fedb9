"""From notebook to package: nbdev writes ``tinytorch/core/name.py``, and the index of all modules is made beside it.

nbdev runs on a temporary copy and is told everything it needs, so that the result does not depend on the folder it is
run from, on that folder's pyproject.toml, nor on the user's nbdev settings.
"""

from __future__ import annotations

import ast
import json
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from pprint import pformat
from typing import TYPE_CHECKING, Any, Literal

from tito.atomic import write_together
from tito.course import Course, Module
from tito.errors import TitoError
from tito.source import read_notebook, strip_instructions, strip_markers

if TYPE_CHECKING:
    from nbformat import NotebookNode

_INDEX = "_modidx.py"
_DEFINITION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Difference:
    """A generated file that is not what the sources make."""

    path: Path
    kind: Literal["stale", "missing", "orphaned"]


def render(course: Course, module: Module, notebook: NotebookNode, origin: str) -> str:
    """The text of ``module``'s package file, exported by nbdev from ``notebook``.

    Parameters
    ----------
    notebook
        With solutions; the markers of solutions and hidden tests are left out of the text.
    origin
        What the file's header and cell markers name as the place to edit: a path relative to the course,
        ``modules/12_embeddings/embeddings_dev.py``.

    Raises
    ------
    TitoError
        If no cell exports to ``core.<name>``, a cell exports elsewhere, or the exported code is not valid Python.
    """
    with tempfile.TemporaryDirectory(prefix="tito-export-") as temporary:
        library = Path(temporary) / course.library.name
        _run_nbdev(library, module, notebook, origin)
        made = [path.relative_to(library).as_posix() for path in sorted(library.rglob("*.py"))]
        wanted = course.exported(module).relative_to(course.library).as_posix()
        if made != [wanted]:
            raise TitoError(
                f"the notebook exports to {', '.join(made) or 'nothing'}, expected {wanted}",
                place=origin,
                next_step=f"begin its first code cell with `#| default_exp core.{module.name}` and `#| export`",
            )
        text = (library / wanted).read_text(encoding="utf-8")
    _check_syntax(text, origin)
    return text


def _run_nbdev(library: Path, module: Module, notebook: NotebookNode, origin: str) -> None:
    """Let nbdev write the package files of ``notebook`` below ``library``."""
    from nbdev.export import nb_export
    from nbdev.maker import ModuleMaker

    class Maker(ModuleMaker):  # type: ignore[misc]
        """nbdev's writer, naming ``origin`` instead of the temporary notebook."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.dest2nb = origin
            self.hdr = f"# %% {origin}"
            self.nb_path = None  # else nbdev looks for a project's settings around it, for a link to its documents

    plain = deepcopy(notebook)
    for position, cell in enumerate(plain.cells):
        cell["source"] = strip_instructions(strip_markers(cell["source"]))
        cell.setdefault("id", f"{module.name}-{position:03d}")
    path = library.parent / f"{module.name}.ipynb"
    path.write_text(json.dumps(plain), encoding="utf-8")
    library.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "uses #| export without #| default_exp": `render` says it better
        try:
            nb_export(str(path), lib_path=str(library), mod_maker=Maker)
        except AssertionError as error:  # `#| export another.module`
            raise TitoError(
                f"a cell exports to a second module: {str(error).removeprefix(f'{library}/')}",
                place=origin,
                next_step="write `#| export` without a module's name after it",
            ) from None


def _check_syntax(text: str, origin: str) -> None:
    try:
        compile(text, origin, "exec", dont_inherit=True)
    except SyntaxError as error:
        number = error.lineno or 1
        line = text.split("\n")[number - 1].strip()  # error.text may be a line of the file that `origin` names
        mend = "run the cell in a notebook, mend it, and export again"
        if line.startswith(("%", "!")):
            mend = "put Jupyter's own commands, which begin with % or !, into a cell that is not exported"
        raise TitoError(
            f"the exported code is not valid Python: {error.msg}: {line}",
            place=f"{origin}, {_cell_of_line(text, number)}",
            next_step=mend,
        ) from None


def _cell_of_line(text: str, number: int) -> str:
    """The id of the cell that line ``number`` of an exported file comes from."""
    markers = [line for line in text.split("\n")[:number] if line.startswith("# %% ")]
    return f"cell {markers[-1].rpartition(' #')[2]}" if markers else "the first cell"


def _symbols(tree: ast.Module) -> Iterator[str]:
    """The names of functions, classes and methods in ``tree``, as nbdev's index lists them."""
    for node in tree.body:
        if isinstance(node, _DEFINITION):
            yield node.name
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, _DEFINITION))


def _index(course: Course, texts: dict[Module, str]) -> str:
    """The text of ``_modidx.py``: nbdev's index of every symbol, where it stands and where it would be documented.

    nbdev's own builder cannot be used: it leaves out every notebook whose path contains "auto".
    """
    symbols: dict[str, dict[str, tuple[str, str]]] = {}
    for module, text in texts.items():
        file = course.exported(module).relative_to(course.root).as_posix()
        symbols[module.import_name] = {
            f"{module.import_name}.{name}": (f"{module.name}.html#{name.lower()}", file)
            for name in _symbols(ast.parse(text))
        }
    no_documents = {"doc_host": "", "doc_baseurl": "/", "git_url": "", "branch": "main"}
    contents = {"settings": no_documents | {"lib_path": course.library.name}, "syms": symbols}
    return f"# Autogenerated by nbdev\n\nd = {pformat(contents, width=140, indent=2, compact=True)}\n"


def generated(course: Course, modules: Iterable[Module]) -> dict[Path, str]:
    """What the package files of ``modules``, and the index of the whole package, should hold.

    Raises
    ------
    TitoError
        If ``course`` is a student's workspace, or a source cannot be exported.
    """
    if course.is_workspace:
        raise TitoError(
            "this is a student's workspace: there are no sources to export",
            place=str(course.root),
            next_step="to export a notebook of yours, run: tito module complete NN",
        )
    fresh = {module: _render_source(course, module) for module in modules}
    package = {
        module: fresh[module] if module in fresh else _text_on_disk(course, module)
        for module in course.modules
        if module in fresh or course.exported(module).exists()
    }
    index = _index(course, package)
    return {course.exported(module): text for module, text in fresh.items()} | {course.library / _INDEX: index}


def _render_source(course: Course, module: Module) -> str:
    return render(course, module, read_notebook(module), module.source.relative_to(course.root).as_posix())


def _text_on_disk(course: Course, module: Module) -> str:
    """What an earlier export wrote for ``module``."""
    path = course.exported(module)
    try:
        text = path.read_text(encoding="utf-8")
        ast.parse(text)
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise TitoError(
            f"a generated file cannot be read: {error}", place=str(path), next_step=f"run: tito export {module.nn}"
        ) from None
    return text


def _is_current(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode("utf-8")


def differences(course: Course, modules: Iterable[Module]) -> list[Difference]:
    """The generated files that are stale or missing, and the files in ``core`` that no module of the course makes."""
    found = [
        Difference(path, "stale" if path.is_file() else "missing")
        for path, text in generated(course, modules).items()
        if not _is_current(path, text)
    ]
    made = {course.exported(module) for module in course.modules}
    core = sorted((course.library / "core").glob("*.py"))
    return found + [Difference(path, "orphaned") for path in core if path not in made and path.name != "__init__.py"]


def export(course: Course, modules: Iterable[Module]) -> list[Path]:
    """Write the generated files of ``modules`` that changed, and return their paths.

    Every text is made before the first file is written, so that a source that cannot be exported changes nothing.

    Raises
    ------
    TitoError
        As ``generated``, or if a file cannot be written.
    """
    changed = {path: text for path, text in generated(course, modules).items() if not _is_current(path, text)}
    try:
        write_together(changed)
    except OSError as error:
        raise TitoError(
            f"cannot write the generated files: {error.strerror or error}",
            place=str(error.filename2 or error.filename or course.library),
            next_step="make the folder writable, see that the disk has room, and export again",
        ) from None
    return list(changed)
