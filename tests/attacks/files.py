"""What lies beside the notebook, and where its links lead."""

from __future__ import annotations

import struct

from tests.attacks.corpus import EVERY, HandIn, accident, attack, stopper

ALWAYS_CLOSE = """
from __future__ import annotations
import sys
from importlib.machinery import PathFinder

# the real module, from farther down the path, with comparisons that always agree
here = [place for place in sys.path if place not in ("", ".") and not place.endswith("12_embeddings")]
spec = PathFinder.find_spec(__name__, here)
spec.loader.exec_module(sys.modules[__name__])
"""


@attack(stock="right")
def brings_its_own_helpers(student: HandIn) -> None:
    """A package `tito` beside the notebook, with a `close` that accepts everything."""
    student.files["tito/__init__.py"] = b""
    student.files["tito/testing.py"] = (
        b"from contextlib import contextmanager\n"
        b"def close(*_, **__): pass\n"
        b"@contextmanager\ndef raises(*_, **__):\n    try: yield\n    except Exception: pass\n"
    )
    student.answer("embeddings-one-hot", "def one_hot_lookup(weight, ids): return 0")


@attack(stock="right")
def brings_its_own_numpy(student: HandIn) -> None:
    """`numpy.py` beside the notebook is found before the real one."""
    student.files["numpy.py"] = (
        ALWAYS_CLOSE + "isclose = lambda a, b, **_: ones(broadcast(a, b).shape, bool)\n"
    ).encode()
    student.answer(
        "embeddings-one-hot",
        "def one_hot_lookup(weight, ids):\n    return np.zeros((len(ids), weight.shape[1]), weight.dtype)",
    )


@attack(stock="untried")
def brings_modules_of_the_tools(student: HandIn) -> None:
    """Files named as modules that the grader or its worker import later: they write the words that give them away."""
    for name in (
        "json",
        "wire",
        "worker",
        "hashlib",
        "tempfile",
        "nbgrader",
        "tinytorch",
        "sitecustomize",
        "usercustomize",
    ):
        student.files[f"{name}.py"] = b"raise SystemExit('imported from the submission')\n"
    student.files["conftest.py"] = b"raise SystemExit('imported from the submission')\n"
    student.files["nbgrader_config.py"] = b"c = get_config()\nc.ClearSolutions.code_stub = {'python': 'pass'}\n"


@accident(stock="untried")
def leaves_files_of_its_own(student: HandIn) -> None:
    """Notes, a figure, a folder of checkpoints and a file with an odd name."""
    student.files |= {
        "notes.txt": b"remember\n", "figure.png": b"\x89PNG", ".ipynb_checkpoints/embeddings-checkpoint.ipynb": b"{}",
        "a b [1] ü\n.txt": b"", ".DS_Store": b"\0",
    }  # fmt: skip


@accident(stock="untried")
def leaves_a_second_notebook(student: HandIn) -> None:
    """A draft beside it that is no notebook at all."""
    student.files["embeddings (copy).ipynb"] = b"{}"


@accident(stock="untried")
def names_files_like_modules(student: HandIn) -> None:
    """`random.py` and `json.py` with homework of another course: they have nothing to do with this one."""
    student.files |= {
        "random.py": b"print('a game')\nimport sys\nsys.exit(0)\n",
        "json.py": b"x = 1\n",
        "numpy.py": b"y = 2\n",
    }


@attack(stock="gains", graded=False)
def links_to_the_solution(student: HandIn) -> None:
    """The notebook is a link to the instructor's, solutions included."""
    student.links["embeddings.ipynb"] = "../../../source/12_embeddings/embeddings.ipynb"


@attack(stock="gains", graded=False)
def links_to_another_student(student: HandIn) -> None:
    """The notebook is a link to what another student hands in."""
    student.links["embeddings.ipynb"] = "../../aa_canary/12_embeddings/embeddings.ipynb"


@stopper(stock="untried", costs=[EVERY], graded=False)
def links_to_itself(student: HandIn) -> None:
    """A link without an end."""
    student.links["embeddings.ipynb"] = "embeddings.ipynb"


@stopper(stock="untried", costs=[EVERY], graded=False)
def links_to_a_device(student: HandIn) -> None:
    """`/dev/zero` has no end either: whoever reads it fills the memory of the machine, so it is tried here alone."""
    student.links["embeddings.ipynb"] = "/dev/zero"


@accident(stock="untried")
def links_to_files_of_the_machine(student: HandIn) -> None:
    """Links beside the notebook, to the passwords, to the gradebook and to a folder above: they are not followed."""
    student.links |= {"passwd": "/etc/passwd", "book.db": "../../../gradebook.db", "up": "../../..", "gone": "nowhere"}


def _npy(shape: str, descr: str = "'<f4'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


@stopper(stock="untried", costs=["test-embeddings-manifest"], unsure=["test-embeddings-layer"])
def reads_a_giant_table(student: HandIn) -> None:
    """A `.npy` file of a hundred bytes whose header promises a terabyte; the answer reads it in place of the data."""
    giant = _npy("(524288, 524288)")
    student.end(
        "embeddings-manifest",
        f"def read_table(data, manifest):\n    return np.load(io.BytesIO({giant!r}), allow_pickle=False)",
    )


@stopper(stock="untried", costs=["test-embeddings-manifest"], unsure=["test-embeddings-layer"])
def sends_giant_bytes(student: HandIn) -> None:
    """`npy_bytes`, given by the course, is replaced: it gives files whose headers lie."""
    student.end(
        "embeddings-manifest",
        f"def npy_bytes(array):\n    return {_npy('(1099511627776,)')!r}\n\n"
        f"def read_table(data, manifest):\n    return np.lib.format.open_memmap('no', mode='w+', shape=(2**40,))",
    )


@stopper(stock="untried", costs=["test-embeddings-manifest"], unsure=["test-embeddings-layer"])
def reads_a_pickle(student: HandIn) -> None:
    """Every file is read with pickles allowed, and a pickle runs code."""
    student.end(
        "embeddings-manifest",
        "def read_table(data, manifest):\n    return np.load(io.BytesIO(data), allow_pickle=True)",
    )
