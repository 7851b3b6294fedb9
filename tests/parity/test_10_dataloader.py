"""``tinytorch.utils.data`` against ``torch.utils.data``: samples, lengths, batches, errors; and what torch can redo."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinytorch.utils.data as ours
from tinytorch.core.tensor import Tensor

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("torch.utils.data")


def inputs_of(count: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, 3, 4)).astype(dtype)


def both(count: int, dtype: Any = np.float32) -> tuple[Any, Any]:
    """The same TensorDataset of either library."""
    inputs, targets = inputs_of(count, dtype), np.arange(count)
    return (
        ours.TensorDataset(inputs, targets),
        theirs.TensorDataset(torch.from_numpy(inputs), torch.from_numpy(targets)),
    )


def lists(batch: Any) -> Any:
    return [lists(part) for part in batch] if isinstance(batch, tuple | list) else batch.tolist()


@pytest.mark.parametrize("index", [0, -1, 3, slice(1, 4), [2, 0, 2]])
def test_samples(index: Any) -> None:
    dataset, reference = both(5)
    assert len(dataset) == len(reference)
    assert lists(dataset[index]) == lists(reference[index])


def test_an_index_out_of_range_is_an_index_error_in_both() -> None:
    for dataset in both(5):
        with pytest.raises(IndexError):
            dataset[5]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 10, 11])
@pytest.mark.parametrize("count", [1, 10, 12])
def test_lengths_and_batches(count: int, batch_size: int, drop_last: bool) -> None:
    loader, reference = (
        library.DataLoader(dataset, batch_size=batch_size, drop_last=drop_last)
        for library, dataset in zip((ours, theirs), both(count), strict=True)
    )
    assert len(loader) == len(reference)
    batches, expected = list(loader), list(reference)
    assert [tuple(part.shape for part in batch) for batch in batches] == [
        tuple(tuple(part.shape) for part in batch) for batch in expected
    ]
    for batch, want in zip(batches, expected, strict=True):
        assert lists(batch) == lists(want)
        assert [str(part.dtype) for part in batch] == [str(part.dtype).removeprefix("torch.") for part in want]


def test_shuffled_epochs_visit_each_sample_once() -> None:
    for library, dataset in zip((ours, theirs), both(20), strict=True):
        loader = library.DataLoader(dataset, 6, shuffle=True)
        epochs = [[label for _, labels in loader for label in labels.tolist()] for _ in range(2)]
        assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20)) and epochs[0] != epochs[1]


def test_subsets_of_subsets() -> None:
    for library, dataset in zip((ours, theirs), both(10), strict=True):
        part = library.Subset(library.Subset(dataset, [9, 7, 5, 3]), [2, 0])
        assert [int(part[place][1]) for place in range(len(part))] == [5, 9]
        assert lists(next(iter(library.DataLoader(part, 2)))[1]) == [5, 9]


@pytest.mark.parametrize("lengths", [[7, 3], [10, 0], [0.5, 0.5], [0.9, 0.1], [0.3, 0.3, 0.4], [1.0]])
def test_split_lengths(lengths: list[float]) -> None:
    parts, expected = (
        library.random_split(dataset, lengths) for library, dataset in zip((ours, theirs), both(10), strict=True)
    )
    assert [len(part) for part in parts] == [len(part) for part in expected]


def test_a_split_that_ours_does_better() -> None:
    parts = {
        library: [len(part) for part in library.random_split(range(100), [0.71, 0.29])] for library in (ours, theirs)
    }
    assert parts == {ours: [71, 29], theirs: [72, 28]}, "the prose of the module quotes both"


@pytest.mark.parametrize("lengths", [[7, 2], [0.5, 0.6]])
def test_what_does_not_add_up_is_a_value_error_in_both(lengths: list[float]) -> None:
    for library in (ours, theirs):
        with pytest.raises(ValueError, match=r".+"):
            library.random_split(range(10), lengths)


@pytest.mark.parametrize(
    "samples",
    [
        [1, 2, 3],
        [True, False],
        [np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32)],
        [(np.ones(2, np.float32), 1), (np.zeros(2, np.float32), 2)],
        [((1, 2.0), np.ones(3)), ((3, 4.0), np.zeros(3))],
    ],
)
def test_collating(samples: list[Any]) -> None:
    assert lists(ours.default_collate(samples)) == lists(theirs.default_collate(samples))


def test_what_cannot_be_stacked_is_an_error_in_both() -> None:
    with pytest.raises(ValueError, match="collate_fn"):
        ours.default_collate([np.ones(2), np.ones(3)])
    with pytest.raises(RuntimeError):
        theirs.default_collate([torch.ones(2), torch.ones(3)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalize_is_its_formula(dtype: Any) -> None:
    images = np.random.default_rng(0).random((6, 3, 5, 7)).astype(dtype)
    mean, std = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]
    got = ours.Normalize(mean, std)(images)
    x, m, s = (torch.tensor(value, dtype=torch.from_numpy(images).dtype) for value in (images, mean, std))
    want = (x - m[:, None, None]) / s[:, None, None]
    assert got.dtype == dtype and np.allclose(got, want.numpy(), rtol=0, atol=1e-6 if dtype == np.float32 else 1e-14)
    raw = (images * 255).astype(np.uint8)
    scaled = (torch.from_numpy(raw).float() / 255 - m.float()[:, None, None]) / s.float()[:, None, None]
    assert np.allclose(ours.Normalize(mean, std)(raw), scaled.numpy(), rtol=0, atol=1e-6)


def test_statistics_flips_and_crops() -> None:
    raw = np.random.default_rng(1).integers(0, 256, (9, 3, 6, 8), dtype=np.uint8)
    scaled = torch.from_numpy(raw).double() / 255
    mean, std = ours.channel_statistics(raw, chunk=4)
    assert np.allclose(mean, scaled.mean(dim=(0, 2, 3)).numpy(), rtol=1e-12)
    assert np.allclose(std, scaled.std(dim=(0, 2, 3), correction=0).numpy(), rtol=1e-9)
    flipped = ours.RandomHorizontalFlip(p=1.0)(raw)
    assert np.array_equal(flipped, torch.flip(torch.from_numpy(raw), dims=(-1,)).numpy())
    padded = torch.nn.functional.pad(torch.from_numpy(raw), (2, 2, 2, 2))
    windows = padded.unfold(2, 6, 1).unfold(3, 8, 1)  # (N, C, 5, 5, 6, 8)
    for place, crop in enumerate(ours.RandomCrop((6, 8), padding=2)(raw, np.random.default_rng(2))):
        matches = (windows[place] == torch.from_numpy(crop)[:, None, None]).all(dim=(0, 3, 4))
        assert int(matches.sum()) == 1, "it is one of the windows, and they all differ"


def test_a_batch_goes_into_a_tensor_without_being_changed() -> None:
    dataset, reference = both(8)
    (x, _), (want, _) = (
        next(iter(library.DataLoader(one, 8))) for library, one in ((ours, dataset), (theirs, reference))
    )
    assert isinstance(x, Tensor) and np.array_equal(x.numpy(), want.numpy())
