"""The whole terminal for one command: frames drawn in place, keys as they are pressed; given back as it was."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import tty
from contextlib import suppress
from types import FrameType

_TAKE = "\x1b[?1049h\x1b[?25l"  # the other screen, no cursor
_GIVE_BACK = "\x1b[?25h\x1b[?1049l"

# what arrows and function keys send, which may hold letters
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.|.)?")


class FullScreen:
    """A context in which the terminal is ours; left in whatever way, the terminal is as it was.

    Ctrl-C and Ctrl-Z work as everywhere: while the command is stopped the terminal belongs to the shell.
    """

    def __init__(self) -> None:
        self._input = sys.stdin.fileno()
        self._output = sys.stdout.fileno()
        self._shown: tuple[tuple[int, int], list[str]] | None = None

    @staticmethod
    def is_possible() -> bool:
        """True if there is a terminal to draw on and to read keys from."""
        return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"

    def __enter__(self) -> FullScreen:
        self._modes = termios.tcgetattr(self._input)
        self._on_stop = signal.getsignal(signal.SIGTSTP)
        if self._on_stop is not signal.SIG_IGN:
            signal.signal(signal.SIGTSTP, self._stop)
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTSTP, self._on_stop)
        self._give_back()

    @property
    def is_blank(self) -> bool:
        """True if nothing is drawn, as after Ctrl-Z and `fg`."""
        return self._shown is None

    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        return os.get_terminal_size(self._output)

    def keys(self) -> str:
        """The keys pressed since the last call, those of a letter; empty if there are none.

        Raises
        ------
        EOFError
            If the terminal is gone.
        """
        if not select.select([self._input], [], [], 0)[0]:
            return ""
        with suppress(OSError):
            if pressed := os.read(self._input, 1024):
                return _SEQUENCE.sub("", pressed.decode(errors="ignore"))
        raise EOFError

    def draw(self, lines: list[str]) -> None:
        """Show ``lines``, one for each row of the terminal, none of them wider than it."""
        shown = self.size(), lines
        if shown != self._shown:
            self._shown = shown
            self._write("\x1b[H" + "\r\n".join(f"\x1b[2K{line}" for line in lines))

    def _take(self) -> None:
        tty.setcbreak(self._input, termios.TCSADRAIN)
        self._write(_TAKE)
        self._shown = None

    def _give_back(self) -> None:
        with suppress(OSError, termios.error):  # it may be gone
            self._write(_GIVE_BACK)
            termios.tcsetattr(self._input, termios.TCSADRAIN, self._modes)

    def _stop(self, *_: int | FrameType | None) -> None:
        """Stop at Ctrl-Z, and go on from here at `fg`."""
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._stop)
        self._take()

    def _write(self, text: str) -> None:
        """Past `sys.stdout`, which cannot be written to when Ctrl-Z has come in the midst of a write."""
        left = text.encode(sys.stdout.encoding, errors="replace")
        while left:
            left = left[os.write(self._output, left) :]
