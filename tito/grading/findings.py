"""What an instructor should know of a submission besides its score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from tito.outcome import RunResult

Kind = Literal["repairs", "timeouts", "crashes"]


@dataclass(frozen=True)
class Findings:
    """What had to be repaired, and the cells that did not end by themselves: too slow, or for any other reason."""

    repairs: tuple[str, ...] = ()
    timeouts: tuple[str, ...] = ()
    crashes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.lines)

    @property
    def lines(self) -> tuple[str, ...]:
        """All of them, in words."""
        return self.repairs + self.timeouts + self.crashes


def collect(found: Iterable[tuple[Kind, str]]) -> Findings:
    """The findings of each kind, in the order in which they were made."""
    kinds: dict[Kind, list[str]] = {"repairs": [], "timeouts": [], "crashes": []}
    for kind, text in found:
        kinds[kind].append(text)
    return Findings(*(tuple(texts) for texts in kinds.values()))


def of_run(result: RunResult) -> Iterator[tuple[Kind, str]]:
    """The cells of a run that did not end by themselves, and the tests that were not run."""
    timed_out = False
    for cell in result.cells:
        if cell.status in ("timeout", "output limit", "died"):
            timed_out = timed_out or cell.status == "timeout"
            yield "timeouts" if cell.status == "timeout" else "crashes", f"{cell.grade_id or cell.id}: {cell.evalue}"
    left = [cell for cell in result.cells if cell.status == "not run" and cell.is_test]
    if left:
        yield "timeouts" if timed_out else "crashes", f"{len(left)} tests not run: {left[0].evalue}"
