"""The ladder of hints of an exercise: a question, the method, near-code. They stand in the module's ``hints.yaml``."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tito.atomic import write_atomically
from tito.course import Course, Module
from tito.errors import TitoError
from tito.progress import dump_progress, only_one, progress_file, read_progress
from tito.repair import read_pristine
from tito.source import code_cells, read_notebook

if TYPE_CHECKING:
    from tito.judge import Failure

FILE = "hints.yaml"
RUNGS = {"question": "a question", "method": "the method", "code": "near-code"}  # as in the file, and as people say

# what the message of the failure says is all the help there is: a word to spell, a file to find
_TELL_THEMSELVES = {
    "FileNotFoundError",
    "ImportError",
    "IndentationError",
    "ModuleNotFoundError",
    "NameError",
    "SyntaxError",
    "TabError",
    "UnboundLocalError",
}


class Rung(NamedTuple):
    """One hint: its key in ``RUNGS`` and what it says; that of ``code`` is lines of Python, the others are prose."""

    name: str
    text: str


Ladder = tuple[Rung, ...]


@dataclass(frozen=True)
class Hint:
    """The rungs of a ladder that are shown, the newest last.

    ``function`` is what the ladder is for, where the exercise has several; ``is_new`` is False if each rung had been
    shown before.
    """

    exercise: str
    function: str
    rungs: Ladder
    is_new: bool

    @property
    def is_all(self) -> bool:
        return len(self.rungs) == len(RUNGS)


def helps(failure: Failure) -> bool:
    """True if a hint on the exercise can help: not where Python cannot read the cell, or a name or file is missing."""
    return bool(failure.exercise) and failure.error not in _TELL_THEMSELVES


def next_hint(course: Course, item: Module, failure: Failure) -> Hint | None:
    """Climb one rung for the exercise that fails, and record it; None if no hint can help.

    Each exercise, and each function of one with several, has a count of its own. Authors see the whole ladder.

    Raises
    ------
    TitoError
        If ``hints.yaml`` is missing, broken or without this exercise, or if the record cannot be changed now.
    """
    if not helps(failure):
        return None
    ladders = read_ladders(item).get(failure.exercise)
    if ladders is None:
        raise TitoError(
            f"there is no hint for {failure.exercise}",
            place=str(item.folder / FILE),
            next_step=_advice(item),
        )
    function = _function_to_mend(course, item, failure, list(ladders))
    ladder = ladders[function]
    before = _count(course, item, " ".join(filter(None, [failure.exercise, function])), len(ladder))
    return Hint(failure.exercise, function, ladder[: before + 1], before < len(ladder))


def _function_to_mend(course: Course, item: Module, failure: Failure, functions: list[str]) -> str:
    """The one that failed; if that is not known, the one that the failing test speaks of; or the first."""
    own = [name for name in functions if f"{failure.function}.".startswith(f"{name}.")]
    if own or len(functions) == 1:
        return (own or functions)[0]
    spoken = (_spoken_of(text, functions) for text in _evidence(course, item, failure))
    return next(filter(None, spoken), functions[0])


def _evidence(course: Course, item: Module, failure: Failure) -> list[str]:
    """What may name the function to mend, the best first: the failing line, its statement, the message, lines above."""
    notebook = read_pristine(item) if course.is_workspace else read_notebook(item)
    source = next((cell.source for cell in code_cells(notebook) if cell.id == failure.failed), "")
    above = source.split("\n")[: failure.failed_line]
    return [failure.line, _statement_at(source, failure.failed_line), failure.problem, *reversed(above)]


def _statement_at(source: str, line: int) -> str:
    """The innermost statement that holds ``line``: of a ``with`` that failed, the block as well."""
    statements = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)]
    around = [node for node in statements if node.lineno <= line <= (node.end_lineno or node.lineno)]
    innermost = max(around, key=lambda node: node.lineno, default=None)
    return ast.get_source_segment(source, innermost) or "" if innermost else ""


def _spoken_of(text: str, functions: list[str]) -> str:
    """The function whose name stands first in ``text`` (``_sub`` as ``sub`` or ``SUB``), or else its class's."""
    for part in (-1, 0):
        names = {
            name: name.split(".")[part].lstrip("_") for name in functions if not name.split(".")[part].endswith("__")
        }
        found = {name: re.search(rf"\b_?{word}\b", text, re.IGNORECASE) for name, word in names.items()}
        places = {name: match.start() for name, match in found.items() if match}
        if places:
            return min(places, key=places.__getitem__)
    return ""


def _count(course: Course, item: Module, ladder: str, most: int) -> int:
    """How many rungs of ``ladder`` were shown before; one more is recorded. Of authors nothing is."""
    if not course.is_workspace:
        return most - 1
    with only_one(course, f"tito module hint {item.nn}"):
        progress = read_progress(course)
        before = progress.hints.get(ladder, 0)
        if before < most:
            hints = {**progress.hints, ladder: before + 1}
            write_atomically(progress_file(course), dump_progress(course, replace(progress, hints=hints)))
    return before


def read_ladders(item: Module) -> dict[str, dict[str, Ladder]]:
    """Every ladder of a module, by exercise and function; the function is empty where the exercise has one ladder.

    Raises
    ------
    TitoError
        If ``hints.yaml`` is missing or is not what it should be.
    """
    path = item.folder / FILE
    entries = _mapping(_read(item), str(path), item)
    return {str(exercise): _ladders(entry, f"{path}, {exercise}", item) for exercise, entry in entries.items()}


def _read(item: Module) -> Any:
    import yaml

    path = item.folder / FILE
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TitoError(f"module {item.slug} has no {FILE}", place=str(item.folder), next_step=_advice(item)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise TitoError(f"the hints cannot be read: {error}", place=str(path), next_step=_advice(item)) from None
    except yaml.MarkedYAMLError as error:
        where = f"{path}, line {error.problem_mark.line + 1}" if error.problem_mark else str(path)
        raise TitoError(f"the hints are not YAML: {error.problem}", place=where, next_step=_advice(item)) from None
    except yaml.YAMLError as error:
        raise TitoError(f"the hints are not YAML: {error}", place=str(path), next_step=_advice(item)) from None


def _advice(item: Module) -> str:
    if item.source.is_file():
        return "see CONTRIBUTING.md, 'The ladder of hints'"
    return "copy this file from the workspace you were given"


def _ladders(entry: Any, place: str, item: Module) -> dict[str, Ladder]:
    """The ladders of one exercise: its own, or one for each of its functions."""
    entry = _mapping(entry, place, item)
    if entry.keys() & RUNGS.keys():
        return {"": _ladder(entry, place, item)}
    return {
        str(function): _ladder(_mapping(rungs, f"{place}, {function}", item), f"{place}, {function}", item)
        for function, rungs in entry.items()
    }


def _ladder(entry: dict[Any, Any], place: str, item: Module) -> Ladder:
    unknown = next((key for key in entry if key not in RUNGS), None)
    if unknown is not None:
        raise TitoError(f"{unknown!r} is no rung: {', '.join(RUNGS)}", place=place, next_step=_advice(item))
    for name in RUNGS:
        if not isinstance(entry.get(name), str) or not entry[name].strip():
            raise TitoError(f"the ladder has no text for {name!r}", place=place, next_step=_advice(item))
    return tuple(Rung(name, entry[name].rstrip()) for name in RUNGS)


def _mapping(value: Any, place: str, item: Module) -> dict[Any, Any]:
    if not isinstance(value, dict) or not value:
        raise TitoError(f"expected keys and values, got {value!r}", place=place, next_step=_advice(item))
    return value
