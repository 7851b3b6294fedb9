"""`nn.functional.relu` looked for the files of several modules each time that it was written in a loop."""

from pathlib import Path
from typing import Any

import pytest

import tinytorch
import tinytorch.nn.functional
from tinytorch.core import activations


def test_a_name_is_sought_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = tinytorch.nn.functional.relu

    def refuse(*anything: Any) -> bool:
        raise AssertionError("the file system was asked again")

    monkeypatch.setattr(Path, "is_file", refuse)
    assert tinytorch.nn.functional.relu is first


def test_a_name_follows_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tinytorch.nn.functional.relu is activations.relu
    monkeypatch.setattr(activations, "relu", other := object())
    assert tinytorch.nn.functional.relu is other
