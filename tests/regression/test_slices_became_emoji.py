"""``data[:end:2]`` was shown as ``data[🔚2]``: rich takes what stands between colons for the name of an emoji."""

from collections.abc import Callable

import pytest
from rich.console import Console

from tito.cli import nbgrader, show


@pytest.mark.parametrize("make", [show.new_console, nbgrader._console])
def test_code_is_shown_as_it_is_written(make: Callable[[], Console]) -> None:
    console = make()
    with console.capture() as shown:
        console.print("data[:end:2]", style="red")
    assert shown.get() == "data[:end:2]\n"
