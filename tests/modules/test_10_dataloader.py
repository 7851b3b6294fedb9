"""What ``tinytorch.core.dataloader`` must do, whoever wrote it: the course's solution or a student's export."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinytorch.core.dataloader import (
    Compose,
    DataLoader,
    Dataset,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    Subset,
    TensorDataset,
    batch_count,
    channel_statistics,
    default_collate,
    epoch_order,
    fetch,
    generator_for,
    index_batches,
    prefetched,
    random_split,
    split_lengths,
)
from tinytorch.core.tensor import Tensor, manual_seed

PATIENCE = 20.0  # seconds; whatever hangs is a failure by then


class Numbers(Dataset):
    """Sample i is (an array of i, i); it blocks or fails where it is told to."""

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        self.count, self.fails_at = count, fails_at

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        if index == self.fails_at:
            raise OSError("cannot read")
        return np.full(3, index, np.float32), index


def table(count: int = 10) -> TensorDataset:
    return TensorDataset(np.arange(2.0 * count).reshape(count, 2), np.arange(count, dtype=np.uint8))


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def rounds(loader: Any, count: int = 1) -> list[list[tuple[Any, Any]]]:
    return [[(inputs.tolist(), targets.tolist()) for inputs, targets in loader] for _ in range(count)]


def jitter(inputs: Any, generator: np.random.Generator) -> Any:
    return inputs + generator.random(inputs.shape)


# datasets


def test_a_dataset_must_say_how_many_and_which() -> None:
    with pytest.raises(NotImplementedError, match=r"Dataset.*__len__"):
        len(Dataset())
    with pytest.raises(NotImplementedError, match=r"Dataset.*__getitem__"):
        Dataset()[0]


def test_a_sample_is_a_tuple_of_rows_and_dtypes_stay() -> None:
    dataset = TensorDataset(Tensor([[1.0, 2.0], [3.0, 4.0]]), np.array([7, 8], np.uint8), ["a", "b"])
    first, second, third = dataset[1]
    assert first.tolist() == [3, 4] and second == 8 and second.dtype == np.uint8 and third == "b"
    assert len(dataset) == 2


def test_arrays_are_held_not_copied() -> None:
    array = np.zeros((4, 2))
    dataset = TensorDataset(array)
    assert np.shares_memory(dataset.arrays[0], array)
    batch = dataset[[0, 1]][0]
    assert not np.shares_memory(batch, array), "a batch is a copy, which transforms may write into"


def test_a_dataset_can_be_walked_over() -> None:
    assert [int(label) for _, label in Subset(table(5), [4, 2])] == [4, 2]


@pytest.mark.parametrize("dataset", [table(10), Subset(table(20), range(10))], ids=["TensorDataset", "Subset"])
def test_an_index_out_of_range_is_named(dataset: Dataset) -> None:
    kind = type(dataset).__name__
    for index, named in [(10, 10), (-11, -11), ([0, 12, 3], 12)]:
        with pytest.raises(IndexError, match=f"{kind}: index {named} is out of range for 10 samples"):
            dataset[index]
    with pytest.raises(TypeError, match="whole number"):
        dataset[1.5]
    with pytest.raises(TypeError, match="whole number"):
        dataset[[True, False]]


@pytest.mark.parametrize("arrays", [(), ([1, 2], [1, 2, 3]), ([1], [1], [])])
def test_lengths_that_differ_are_named(arrays: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="same length, got") as caught:
        TensorDataset(*arrays)
    assert str([len(array) for array in arrays]) in str(caught.value)


def test_a_subset_of_a_subset_and_an_empty_one() -> None:
    inner = Subset(Subset(table(10), [9, 8, 7, 6]), [0, 3])
    assert [int(inner[place][1]) for place in range(2)] == [9, 6]
    assert inner[np.array([1, 0])][1].tolist() == [6, 9]
    assert len(Subset(table(3), [])) == 0 and list(DataLoader(Subset(table(3), []), 2)) == []
    with pytest.raises(IndexError, match="Subset: index 10 is out of range for 10 samples"):
        Subset(table(10), [10])


# splitting


@pytest.mark.parametrize(
    ("count", "lengths", "expected"),
    [
        (100, [0.71, 0.29], [71, 29]),
        (100, [0.57, 0.43], [57, 43]),
        (10, [1 / 3, 1 / 3, 1 / 3], [4, 3, 3]),
        (50_000, [0.9, 0.1], [45_000, 5_000]),
        (3, [0.2] * 5, [1, 1, 1, 0, 0]),
        (5, [1.0], [5]),
        (5, [0, 5, 0], [0, 5, 0]),
        (0, [], []),
    ],
)
def test_split_lengths(count: int, lengths: list[float], expected: list[int]) -> None:
    assert split_lengths(count, lengths) == expected


@pytest.mark.parametrize("lengths", [[0.5, 0.4], [0.7, 0.7, -0.4], [float("nan"), 0.5], [5, 4], [11, -1], [1]])
def test_lengths_that_do_not_add_up_are_refused(lengths: list[float]) -> None:
    with pytest.raises(ValueError, match="random_split") as caught:
        random_split(table(10), lengths)
    assert str(lengths) in str(caught.value)


def test_parts_are_disjoint_complete_and_repeatable() -> None:
    parts = random_split(table(30), [0.5, 0.3, 0.2], generator=np.random.default_rng(1))
    numbers = [part.indices.tolist() for part in parts]
    assert [len(part) for part in numbers] == [15, 9, 6]
    assert sorted(np.concatenate(numbers).tolist()) == list(range(30)) != np.concatenate(numbers).tolist()
    again = random_split(table(30), [15, 9, 6], generator=np.random.default_rng(1))
    assert [part.indices.tolist() for part in again] == numbers
    manual_seed(4)
    first = random_split(table(30), [30])[0].indices.tolist()
    manual_seed(4)
    assert random_split(table(30), [30])[0].indices.tolist() == first


# orders and batches


def test_generators_of_different_keys_differ_and_of_the_same_agree() -> None:
    keys = [(0,), (0, 0), (0, 0, 0), (0, 1), (1, 0), (0, 1, 0), (2**40, 1)]
    assert len({generator_for(*key).random() for key in keys}) == len(keys)
    assert generator_for(3, 2, 1).random() == generator_for(3, 2, 1).random()


def test_orders_and_batches() -> None:
    assert epoch_order(5, False, 3, 2).tolist() == [0, 1, 2, 3, 4]
    order = epoch_order(100, True, 3, 2)
    assert order.dtype == np.int64 and sorted(order.tolist()) == list(range(100))
    assert order.tolist() != epoch_order(100, True, 3, 1).tolist()
    for drop_last in (False, True):
        batches = list(index_batches(order, 30, drop_last))
        assert len(batches) == batch_count(100, 30, drop_last) == 4 - drop_last
        assert np.concatenate(batches).tolist() == order[: 90 if drop_last else 100].tolist()


# collating


def test_samples_are_collated_field_by_field() -> None:
    inputs, (number, flag) = default_collate([(np.ones(2), (1, True)), (np.zeros(2), (2, False))])
    assert inputs.shape == (2, 2) and number.tolist() == [1, 2] and flag.tolist() == [True, False]
    assert default_collate([Tensor([1.0]), Tensor([2.0])]).tolist() == [[1.0], [2.0]]


def test_samples_that_differ_are_named_by_position() -> None:
    samples = [(np.zeros((2, 3)), 0), (np.zeros((2, 3)), 1), (np.zeros((2, 4)), 2)]
    with pytest.raises(ValueError, match=r"sample 0 .*\(2, 3\).* sample 2 .*\(2, 4\).*collate_fn"):
        default_collate(samples)
    with pytest.raises(ValueError, match=r"sample 1 .*collate_fn"):
        default_collate([(1, 2), (1,)])
    with pytest.raises(TypeError, match=r"sample 0 .*str.*collate_fn"):
        default_collate(["a", "b"])


def test_a_batched_dataset_is_asked_once() -> None:
    asked = []

    class Watched(TensorDataset):
        def __getitem__(self, index: Any) -> Any:
            asked.append(np.ndim(index))
            return super().__getitem__(index)

    watched = Watched(np.arange(6))
    fetch(watched, np.array([1, 2, 3]))
    fetch(Subset(watched, [5, 4, 3]), np.array([0, 1]))
    assert asked == [1, 1]
    assert fetch(watched, np.array([1, 2]), collate_fn=len) == 2 and asked == [1, 1, 0, 0]


# transforms


@pytest.mark.parametrize("shape", [(8, 3, 5, 7), (8, 5, 7), (8, 7)])
def test_flips_mirror_whole_images_and_leave_the_input(shape: tuple[int, ...]) -> None:
    batch = images(*shape)
    before = batch.copy()
    out = RandomHorizontalFlip()(batch, np.random.default_rng(3))
    mirrored = np.random.default_rng(3).random(8) < 0.5
    for place in range(8):
        assert np.array_equal(out[place], batch[place, ..., ::-1] if mirrored[place] else batch[place])
    assert 0 < mirrored.sum() < 8 and np.array_equal(batch, before) and out.dtype == np.uint8


@pytest.mark.parametrize(("size", "padding"), [(32, 4), ((5, 32), 0), (40, 4), ((1, 1), 2)])
def test_crops_are_windows_of_the_padded_image(size: Any, padding: int) -> None:
    batch = images(16, 2, 32, 33)
    height, width = size if isinstance(size, tuple) else (size, size)
    out = RandomCrop(size, padding, fill=7)(batch, np.random.default_rng(5))
    assert out.shape == (16, 2, height, width) and out.dtype == np.uint8
    edge = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    padded = np.pad(batch, edge, constant_values=7)
    draw = np.random.default_rng(5)
    tops = draw.integers(0, 32 + 2 * padding - height + 1, 16)
    lefts = draw.integers(0, 33 + 2 * padding - width + 1, 16)
    for place, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        assert np.array_equal(out[place], padded[place, :, top : top + height, left : left + width])


def test_windows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"RandomCrop\(size=10, padding=1.*8 x 6 are too small"):
        RandomCrop(10, padding=1)(images(2, 3, 8, 6))
    with pytest.raises(ValueError, match=r"\(N, C, H, W\), got \(3, 8, 6\)"):
        RandomCrop(4)(images(3, 8, 6))
    with pytest.raises(ValueError, match="p is a probability"):
        RandomHorizontalFlip(-0.1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalised_images_have_mean_0_and_deviation_1(dtype: Any) -> None:
    batch = images(50, 3, 8, 8)
    out = Normalize(*channel_statistics(batch, chunk=7))(batch)
    assert out.dtype == np.float32
    assert np.allclose(out.mean(axis=(0, 2, 3)), 0, atol=1e-5) and np.allclose(out.std(axis=(0, 2, 3)), 1, atol=1e-5)
    scaled = (batch / 255).astype(dtype)
    again = Normalize(*channel_statistics(scaled))(scaled)
    assert again.dtype == dtype and np.allclose(again, out, atol=1e-5)
    assert np.array_equal(scaled, (batch / 255).astype(dtype)), "the input stays"


def test_statistics_of_large_offsets_and_pieces() -> None:
    numbers = np.random.default_rng(1).normal(1000, 1, (40, 2, 3, 3))
    for chunk in (1, 13, 100):
        mean, std = channel_statistics(numbers, chunk)
        assert np.allclose(mean, numbers.mean(axis=(0, 2, 3)), rtol=1e-12)
        assert np.allclose(std, numbers.std(axis=(0, 2, 3)), rtol=1e-6)


def test_what_normalize_refuses() -> None:
    with pytest.raises(ValueError, match="std should be positive"):
        Normalize(0.5, [0.1, 0.0])
    with pytest.raises(ValueError, match=r"2 values do not fit .*\(4, 3, 8, 8\)"):
        Normalize([0.5, 0.5], [0.1, 0.1])(images(4, 3, 8, 8))
    with pytest.raises(TypeError, match="int64"):
        Normalize(0.5, 0.1)(np.arange(3))


def test_transforms_show_themselves_and_use_the_default_generator() -> None:
    assert repr(Compose([RandomCrop(32, 4)])) == "Compose(transforms=[RandomCrop(size=32, padding=4, fill=0)])"
    augment = Compose([RandomCrop(8, 2), RandomHorizontalFlip()])
    manual_seed(6)
    first = augment(images(9, 3, 8, 8))
    manual_seed(6)
    assert np.array_equal(augment(images(9, 3, 8, 8)), first)


# the loader


def test_batches_are_tensors_and_labels_int64() -> None:
    (inputs, targets), *_ = DataLoader(table(), 4)
    assert isinstance(inputs, Tensor) and inputs.dtype == np.float32 and targets.dtype == np.int64
    raw, small = next(iter(DataLoader(TensorDataset(images(4, 3, 2, 2), np.arange(4, dtype=np.int16)), 2)))
    assert raw.dtype == np.uint8 and small.dtype == np.int64
    assert next(iter(DataLoader(np.arange(6, dtype=np.int32), 4))).tolist() == [0, 1, 2, 3]
    assert next(iter(DataLoader([1.5, 2.5, 3.5], 2))).tolist() == [1.5, 2.5]


def test_a_batch_may_be_written_into() -> None:
    array = np.zeros((4, 2), np.float32)
    for inputs in DataLoader(array, 2):
        inputs.data += 1
    assert not array.any()


@pytest.mark.parametrize(
    ("count", "size", "drop_last", "sizes"), [(10, 4, False, [4, 4, 2]), (10, 4, True, [4, 4]), (3, 8, True, [])]
)
def test_lengths_of_loader_and_batches(count: int, size: int, drop_last: bool, sizes: list[int]) -> None:
    loader = DataLoader(table(count), size, drop_last=drop_last)
    assert len(loader) == len(sizes) and [len(targets) for _, targets in loader] == sizes


def test_a_collate_fn_gets_the_samples_and_its_answer_is_the_batch() -> None:
    texts = ["a", "bb", "ccc"]
    assert list(DataLoader(texts, 2, collate_fn="".join)) == ["abb", "ccc"]
    padded = DataLoader(
        [np.ones(2), np.ones(3)], 2, collate_fn=lambda samples: np.stack([np.resize(one, 3) for one in samples])
    )
    assert next(iter(padded)).shape == (2, 3)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_a_batch_depends_on_seed_epoch_and_place_alone(prefetch: int) -> None:
    def loader(seed: int = 5, prefetch: int = prefetch, dataset: Any = None) -> DataLoader:
        return DataLoader(dataset or table(23), 4, shuffle=True, seed=seed, prefetch=prefetch, transform=jitter)

    first, second, third = rounds(loader(prefetch=0), 3)
    assert first != second != third
    assert rounds(loader(), 3) == [first, second, third]
    assert rounds(loader(dataset=Subset(table(23), range(23)))) == [first]
    resumed = loader()
    resumed.set_epoch(2)
    assert rounds(resumed) == [third]
    half = loader()
    next(iter(half))
    assert rounds(half) == [second], "a round that was left half-way has been a round"
    assert rounds(loader(seed=6)) != [first]


def test_two_rounds_at_once_do_not_disturb_each_other() -> None:
    loader = DataLoader(table(12), 3, shuffle=True, prefetch=2, transform=jitter)
    alone = rounds(DataLoader(table(12), 3, shuffle=True, transform=jitter), 2)
    both = list(zip(loader, loader, strict=True))
    for place in (0, 1):
        assert [(x.tolist(), y.tolist()) for x, y in (pair[place] for pair in both)] == alone[place]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"batch_size": 0}, "batch_size should be at least 1, got 0"),
        ({"batch_size": -2}, "batch_size should be at least 1, got -2"),
        ({"prefetch": -1}, "prefetch should be at least 0, got -1"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(options: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        DataLoader(table(), **options)  # type: ignore[arg-type]


def test_a_batch_size_is_a_whole_number() -> None:
    with pytest.raises(TypeError):
        DataLoader(table(), 2.5)  # type: ignore[arg-type]


# the thread


@pytest.fixture
def thread_ends() -> Iterator[None]:
    """The threads that a test started end by themselves, with nothing collected but what falls out of use."""
    before = set(threading.enumerate())
    gc.disable()
    try:
        yield
        for thread in set(threading.enumerate()) - before:
            thread.join(PATIENCE)
            assert not thread.is_alive()
    finally:
        gc.enable()


def leave_by_break(loader: DataLoader) -> None:
    for _ in loader:
        break


def leave_by_close(loader: DataLoader) -> None:
    batches: Any = iter(loader)
    next(batches)
    batches.close()
    assert next(batches, None) is None


def leave_by_dropping(loader: DataLoader) -> None:
    batches = iter(loader)
    next(batches)
    del batches


def leave_by_an_error(loader: DataLoader) -> None:
    with pytest.raises(ZeroDivisionError):
        for _ in loader:
            raise ZeroDivisionError


def never_begin(loader: DataLoader) -> None:
    iter(loader)


def use_up(loader: DataLoader) -> None:
    assert len(list(loader)) == 500


@pytest.mark.usefixtures("thread_ends")
@pytest.mark.parametrize(
    "leave", [leave_by_break, leave_by_close, leave_by_dropping, leave_by_an_error, never_begin, use_up]
)
@pytest.mark.parametrize("prefetch", [1, 7])
def test_the_thread_ends_however_it_is_left(leave: Callable[[DataLoader], None], prefetch: int) -> None:
    leave(DataLoader(Numbers(500), 1, prefetch=prefetch))


@pytest.mark.usefixtures("thread_ends")
@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_error_in_the_dataset_arrives_with_its_traceback_and_index(prefetch: int) -> None:
    got = []
    with pytest.raises(OSError, match="cannot read") as caught:
        for _, targets in DataLoader(Numbers(20, fails_at=7), 2, prefetch=prefetch):
            got.append(targets.tolist())
    assert got == [[0, 1], [2, 3], [4, 5]]
    assert caught.value.__notes__ == ["in dataset[7]"]
    functions = [entry.name for entry in caught.traceback]
    assert functions[-1] == "__getitem__" and ("fill" in functions) == (prefetch > 0)


@pytest.mark.usefixtures("thread_ends")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, StopIteration])
def test_no_exception_is_swallowed(error: type[BaseException]) -> None:
    def broken(inputs: Any, generator: Any) -> Any:
        raise error

    with pytest.raises(RuntimeError if error is StopIteration else error):
        list(DataLoader(table(), 2, prefetch=2, transform=broken))


@pytest.mark.usefixtures("thread_ends")
def test_the_thread_is_ahead_by_the_depth_and_no_further() -> None:
    reached, blocked = threading.Event(), []

    def source() -> Iterator[int]:
        for number in range(1000):
            blocked.append(number)
            if number == 4:
                reached.set()
            yield number

    ahead: Any = prefetched(source(), depth=3)
    assert next(ahead) == 0
    assert reached.wait(PATIENCE), "one taken, three in the queue, one in its hands"
    assert len(blocked) == 5
    ahead.close()


def run(program: str) -> subprocess.CompletedProcess[str]:
    head = "import numpy as np, sys, threading\nfrom tinytorch.core.dataloader import DataLoader, Dataset\n"
    return subprocess.run([sys.executable, "-c", head + program], capture_output=True, text=True, timeout=PATIENCE)


NEVER_READY = """
class Stuck(Dataset):
    def __len__(self):
        return 100
    def __getitem__(self, index):
        if index == 3:
            print("stuck", flush=True)
            threading.Event().wait()
        return index
"""


@pytest.mark.parametrize("ending", ["", "sys.exit(0)", "del batches", "raise SystemExit"])
def test_a_program_ends_though_the_thread_is_at_work(ending: str) -> None:
    done = run(f"batches = iter(DataLoader(np.zeros((1000, 100, 100)), 2, prefetch=3))\nnext(batches)\n{ending}\n")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_ends_though_the_dataset_never_answers() -> None:
    done = run(f"{NEVER_READY}\nbatches = iter(DataLoader(Stuck(), 1, prefetch=1))\nnext(batches), next(batches)\n")
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_ends_a_program_that_waits_for_the_thread() -> None:
    program = f"""
import signal, threading
from tinytorch.core.dataloader import DataLoader, Dataset
signal.signal(signal.SIGINT, signal.default_int_handler)
{NEVER_READY}
for batch in DataLoader(Stuck(), 1, prefetch=2):
    pass
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stdout is not None and running.stdout.readline() == "stuck\n"
            running.send_signal(signal.SIGINT)
            _, errors = running.communicate(timeout=PATIENCE)
        finally:
            running.kill()
    assert running.returncode == -signal.SIGINT and errors.rstrip().endswith("KeyboardInterrupt")


# large data, and speed


def test_a_mapped_file_goes_through_everything_without_being_read_whole(tmp_path: Path) -> None:
    shape = (1_000_000, 3, 32, 32)  # 3 GB, of which the disk keeps what was written
    written = np.lib.format.open_memmap(tmp_path / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    written[123_456] = 200
    written.flush()
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    tracemalloc.start()
    try:
        part, _ = random_split(TensorDataset(mapped, np.arange(len(mapped))), [0.5, 0.5])
        transform = Compose([RandomCrop(32, 4), RandomHorizontalFlip(), Normalize(0.5, 0.25)])
        for dataset in (part, Subset(part.dataset, [123_456])):
            loader = DataLoader(dataset, 64, shuffle=True, prefetch=2, transform=transform)
            inputs, targets = next(iter(loader))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert targets.tolist() == [123_456] and float(inputs.data.max()) == pytest.approx((200 / 255 - 0.5) / 0.25)
    assert peak < 64e6, f"{peak / 1e6:.0f} MB"


def test_twenty_thousand_augmented_pictures_a_second() -> None:
    transform = Compose([RandomCrop(32, 4), RandomHorizontalFlip(), Normalize([0.49, 0.48, 0.45], [0.25, 0.24, 0.26])])
    data = TensorDataset(images(2560, 3, 32, 32), np.zeros(2560, np.uint8))
    loader = DataLoader(data, 128, shuffle=True, transform=transform)
    seconds = []
    for _ in range(8):
        begin = time.process_time()  # of the processor: a test cannot know what else it is busy with
        for inputs, _ in loader:
            assert inputs.dtype == np.float32
        seconds.append(time.process_time() - begin)
    assert len(data) / min(seconds) > 20_000
