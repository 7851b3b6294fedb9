"""What may be shown on a terminal."""

from __future__ import annotations


def visible(text: str) -> str:
    """``text`` without the characters that a terminal obeys, which can stand in a student's name or notebook."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)
