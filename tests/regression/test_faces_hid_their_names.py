"""tinytorch.nn had to be imported by itself, and neither `dir` nor `import *` saw what the faces show."""

import subprocess
import sys

import pytest

import tinytorch
import tinytorch.nn


@pytest.mark.parametrize(
    "code",
    [
        "import tinytorch as tt; tt.nn.Linear, tt.optim",
        "from tinytorch import *; Tensor, no_grad",
        "from tinytorch.nn import *; Linear, Embedding",
        "from tinytorch.optim import *",
    ],
)
def test_a_fresh_python_finds(code: str) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_dir_lists_what_is_built() -> None:
    assert {"Tensor", "randn", "no_grad", "nn", "__version__"} <= set(dir(tinytorch))
    assert {"Linear", "Embedding", "__name__"} <= set(dir(tinytorch.nn))
    assert "Tensor" not in dir(tinytorch.nn)


@pytest.mark.parametrize("name", ["nope", "__wrapped__"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'tinytorch.nn' has no attribute '{name}'"):
        getattr(tinytorch.nn, name)
