"""The one error type that ``tito`` shows to people."""

from __future__ import annotations


class TitoError(Exception):
    """Something that the person at the keyboard can understand and mend.

    Parameters
    ----------
    problem
        What is wrong, with the offending value in it.
    place
        Where: a file, a cell, a setting. Empty if there is no place.
    next_step
        What to do now: a command to type or a thing to look at.
    status
        The exit status: 1 for a refusal, 2 for a wrong call.
    """

    def __init__(self, problem: str, *, place: str = "", next_step: str = "", status: int = 1) -> None:
        super().__init__(problem)
        self.problem = problem
        self.place = place
        self.next_step = next_step
        self.status = status

    def __str__(self) -> str:
        lines = [self.problem]
        if self.place:
            lines.append(f"  where: {self.place}")
        if self.next_step:
            lines.append(f"  next:  {self.next_step}")
        return "\n".join(lines)


def told(error: OSError) -> TitoError:
    """Trouble with files, told as every other refusal is."""
    return TitoError(
        f"a file cannot be read or written: {error.strerror or error}",
        place=str(error.filename or ""),
        next_step="look at the folder's permissions and at the free space (df -h), then try again",
    )
