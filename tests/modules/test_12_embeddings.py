"""Module 12, embeddings: what the exported file must do."""

import copy
import json
import multiprocessing
import os
import threading

import numpy as np
import pytest

from tinytorch.core import embeddings as module
from tinytorch.core.autograd import gradcheck, no_grad
from tinytorch.core.embeddings import (
    Embedding,
    EmbeddingProfiler,
    LearnedPositionalEmbedding,
    PositionalEncoding,
    analyze_embedding_system_design,
    embedding_gradient,
    initial_weight,
    scatter_add,
    table_gradient,
)
from tinytorch.core.layers import Module, Parameter
from tinytorch.core.tensor import Tensor, apply, manual_seed
from tinytorch.core.tokenization import CharTokenizer


def rows_by_hand(gradient, ids, vocab_size, skip=None):
    """The gradient of a table, one position after the other."""
    total = np.zeros((vocab_size, gradient.shape[-1]))
    for token, row in zip(np.ravel(ids), gradient.reshape(-1, gradient.shape[-1]), strict=True):
        if token != skip:
            total[token] += row
    return total


# the layer


@pytest.mark.parametrize(
    "ids",
    [3, [1, 2], [[1, 2], [3, 4]], np.array([[[7, 0]]]), np.array([5], np.uint8), Tensor([9, 9]), Tensor([[1]]), []],
    ids=lambda ids: f"{type(ids).__name__}{np.shape(ids)}",
)
def test_lookup_has_the_shape_of_the_ids_and_the_rows_of_the_table(ids):
    layer = Embedding(10, 4)
    out = layer(ids)
    assert type(out) is Tensor and out.dtype == np.float32
    np.testing.assert_array_equal(out.data, layer.weight.data[np.asarray(ids, dtype=int)])


@pytest.mark.parametrize("shape", [(8, 8), (7, 5), (3,), (1,)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_threads_look_up_what_one_does(shape, dtype, monkeypatch):
    monkeypatch.setattr(module, "LARGE_LOOKUP", 0)
    table = np.random.default_rng(0).normal(size=(20, 6)).astype(dtype)[:, ::2]  # not in one piece
    ids = np.random.default_rng(1).integers(0, 20, shape)
    rows = module.take_rows(table, ids)
    assert rows.dtype == dtype
    np.testing.assert_array_equal(rows, table[ids])


def test_nobody_waits_for_a_second_thread_that_has_other_work(monkeypatch):
    monkeypatch.setattr(module, "LARGE_LOOKUP", 0)
    table, done = np.eye(5), threading.Event()
    other_work = module._second_thread.submit(done.wait, 60)
    np.testing.assert_array_equal(module.take_rows(table, np.arange(5)), table)
    assert not other_work.done()
    done.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_does_without_the_second_thread(monkeypatch):
    monkeypatch.setattr(module, "LARGE_LOOKUP", 0)
    layer = Embedding(10, 4)
    layer([1, 2, 3])  # starts the thread, which a fork leaves behind
    child = multiprocessing.get_context("fork").Process(target=layer, args=([1, 2, 3],), daemon=True)
    child.start()
    child.join(60)
    assert child.exitcode == 0


@pytest.mark.parametrize(
    ("ids", "words"),
    [([[1, 2], [30, 4]], ["30", "[1, 0]", "0 to 9"]), ([0, -1], ["-1", "[1]"]), (10, ["10"]), (Tensor([10]), ["10"])],
)
def test_an_id_out_of_range_is_named_with_its_place_and_the_range(ids, words):
    with pytest.raises(IndexError) as error:
        Embedding(10, 4)(ids)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("ids", [[1.0], np.zeros(2), Tensor([0.5]), [True], ["a"]])
def test_ids_that_are_not_whole_numbers_are_a_type_error(ids):
    with pytest.raises(TypeError, match="whole numbers"):
        Embedding(10, 4)(ids)


def test_ragged_ids_say_that_padding_is_missing():
    with pytest.raises(ValueError, match="pad"):
        Embedding(10, 4)([[1, 2], [3]])


@pytest.mark.parametrize(
    ("init_type", "spread", "bound"),
    [
        ("uniform", 1 / np.sqrt(40) / np.sqrt(3), 1 / np.sqrt(40)),
        ("normal", 1 / np.sqrt(40), np.inf),
        ("xavier", np.sqrt(6 / 1040) / np.sqrt(3), np.sqrt(6 / 1040)),
        ("gpt2", 0.02, np.inf),
    ],
)
def test_initialisation_follows_its_formula_and_the_seed(init_type, spread, bound):
    manual_seed(0)
    table = Embedding(1000, 40, init_type=init_type).weight.data
    assert table.dtype == np.float32
    assert table.std() == pytest.approx(spread, rel=0.02)
    assert np.abs(table).max() <= bound
    manual_seed(0)
    np.testing.assert_array_equal(initial_weight(1000, 40, init_type), table)


def test_an_unknown_initialisation_lists_the_four():
    with pytest.raises(ValueError, match=r"'he'.*uniform.*normal.*xavier.*gpt2"):
        Embedding(10, 4, init_type="he")


@pytest.mark.parametrize("bad", [{"vocab_size": 0}, {"embedding_dim": -1}, {"vocab_size": 2.5}, {"vocab_size": True}])
def test_sizes_that_make_no_table_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Embedding(**{"vocab_size": 10, "embedding_dim": 4} | bad)


@pytest.mark.parametrize("padding_idx", [-1, 10])
def test_a_padding_id_that_is_no_id_is_refused(padding_idx):
    with pytest.raises(ValueError, match=f"padding_idx {padding_idx}"):
        Embedding(10, 4, padding_idx=padding_idx)


def test_the_table_is_a_parameter_and_appears_in_the_state():
    layer = Embedding(10, 4, padding_idx=1)
    assert isinstance(layer, Module) and isinstance(layer.weight, Parameter)
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    assert repr(layer) == "Embedding(vocab_size=10, embedding_dim=4, padding_idx=1)"
    other = Embedding(10, 4)
    other.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(other.weight.data, layer.weight.data)
    np.testing.assert_array_equal(copy.deepcopy(layer).weight.data, layer.weight.data)


def test_memory_usage():
    assert Embedding(1024, 256).get_memory_usage() == {
        "total_memory_mb": 1.0,
        "memory_per_token_kb": 1.0,
        "total_parameters": 262_144,
        "vocab_size": 1024,
        "embedding_dim": 256,
    }


# its gradient


def test_gradients_of_repeated_ids_add_up():
    layer = Embedding(5, 3)
    layer([3, 3]).sum().backward()
    want = np.zeros((5, 3))
    want[3] = 2
    np.testing.assert_array_equal(layer.weight.grad.data, want)


def test_the_padding_row_is_zero_and_stays_zero():
    layer = Embedding(6, 3, padding_idx=2)
    for _ in range(5):
        (layer([[2, 1], [2, 2]]) - 1.0).sum().backward()
        assert not layer.weight.grad.data[2].any() and layer.weight.grad.data[1].any()
        layer.weight.data = layer.weight.data - 0.1 * layer.weight.grad.data
    assert not layer.weight.data[2].any()


@pytest.mark.parametrize("gradient_of", [scatter_add, embedding_gradient, table_gradient], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("vocab_size", "shape"), [(1, (7,)), (100, (4, 5)), (5, (4, 6)), (1000, (2, 3, 4)), (4, (0,)), (9, ())]
)
def test_the_table_gradient_is_the_sum_by_id(gradient_of, vocab_size, shape):
    rng = np.random.default_rng(0)
    ids, gradient = rng.integers(0, vocab_size, size=shape), rng.normal(size=(*shape, 3))
    np.testing.assert_allclose(gradient_of(gradient, ids, vocab_size), rows_by_hand(gradient, ids, vocab_size))


def test_the_padding_row_of_the_gradient_is_zero():
    rng = np.random.default_rng(1)
    ids, gradient = rng.integers(0, 4, size=(5, 5)), rng.normal(size=(5, 5, 2))
    for skip in range(4):
        got = embedding_gradient(gradient, ids, 4, skip)
        np.testing.assert_allclose(got, rows_by_hand(gradient, ids, 4, skip))
    each_once = table_gradient(np.ones((9, 1)), np.arange(9), 9, padding_idx=3)
    np.testing.assert_array_equal(each_once.ravel(), [1, 1, 1, 0, 1, 1, 1, 1, 1])


@pytest.mark.parametrize("padding_idx", [None, 1])
def test_gradients_agree_with_finite_differences(padding_idx):
    ids = np.array([[4, 3, 4], [0, 3, 3]])
    encode = PositionalEncoding(4, max_seq_length=6)
    rng = np.random.default_rng(2)
    table = Tensor(rng.normal(size=(5, 4)), dtype=np.float64, requires_grad=True)

    def loss(weight):
        return encode(apply(module.EMBEDDING, weight, ids, padding_idx=padding_idx)).tanh().sum()

    assert gradcheck(loss, [table])


def test_no_gradient_under_no_grad():
    layer = Embedding(5, 3)
    with no_grad():
        out = layer([1])
    assert not out.requires_grad


# files


@pytest.fixture
def saved(tmp_path):
    layer = Embedding(7, 5, padding_idx=2)
    layer.save(tmp_path / "table")
    return layer, tmp_path


@pytest.mark.parametrize("name", ["table", "table.npy", "table.json"])
def test_a_saved_table_comes_back_bit_for_bit(saved, name):
    layer, folder = saved
    again = Embedding.load(folder / name)
    assert again.weight.data.tobytes() == layer.weight.data.tobytes()
    assert isinstance(again.weight, Parameter) and again.weight.requires_grad and again.padding_idx == 2
    assert sorted(path.name for path in folder.iterdir()) == ["table.json", "table.npy"]


def test_a_float64_table_stays_float64(tmp_path):
    layer = Embedding(3, 2)
    layer.weight.data = np.random.default_rng(0).normal(size=(3, 2))
    layer.save(tmp_path / "wide")
    again = Embedding.load(tmp_path / "wide")
    assert again.weight.dtype == np.float64 and np.array_equal(again.weight.data, layer.weight.data)


def test_the_manifest_says_what_the_numbers_are(saved):
    manifest = json.loads((saved[1] / "table.json").read_text())
    assert manifest["shape"] == [7, 5] and manifest["dtype"] == "float32" and manifest["padding_idx"] == 2
    assert manifest["version"] == 1 and len(manifest["sha256"]) == 64


def _truncate(folder):
    path = folder / "table.npy"
    path.write_bytes(path.read_bytes()[:-3])


def _edit(folder):
    path = folder / "table.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def _swap(folder):
    Embedding(7, 5).save(folder / "other")
    os.replace(folder / "other.npy", folder / "table.npy")


def _manifest(**changes):
    def change(folder):
        path = folder / "table.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _no_json(folder):
    (folder / "table.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_truncate, "checksum"),
        (_edit, "checksum"),
        (_swap, "checksum"),
        (_manifest(version=2), "version 2"),
        (_manifest(format="other"), "format"),
        (_manifest(shape=[5, 7]), "manifest"),
        (_manifest(dtype="float64"), "manifest"),
        (_no_json, "JSON"),
    ],
)
def test_damaged_files_are_refused_with_the_reason(saved, damage, reason):
    damage(saved[1])
    with pytest.raises(ValueError, match=reason):
        Embedding.load(saved[1] / "table")


@pytest.mark.parametrize("name", ["table.npy", "table.json"])
def test_a_missing_file_is_named(saved, name):
    (saved[1] / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        Embedding.load(saved[1] / "table")


@pytest.mark.parametrize("writes_before_the_crash", [0, 1])
def test_a_save_that_is_cut_off_leaves_the_old_table(saved, monkeypatch, writes_before_the_crash):
    old, folder = saved
    write, left = module.write_atomically, [writes_before_the_crash]

    def failing(path, data):
        if not left[0]:
            raise OSError("no space left on device")
        left[0] -= 1
        write(path, data)

    monkeypatch.setattr(module, "write_atomically", failing)
    with pytest.raises(OSError, match="no space"):
        Embedding(7, 5).save(folder / "table")
    monkeypatch.undo()
    np.testing.assert_array_equal(Embedding.load(folder / "table").weight.data, old.weight.data)
    newer = Embedding(7, 5)
    newer.save(folder / "table")
    np.testing.assert_array_equal(Embedding.load(folder / "table").weight.data, newer.weight.data)
    assert sorted(path.name for path in folder.iterdir()) == ["table.json", "table.npy"]


# positions


def reference_positions(length, width):
    table = np.zeros((length, width))
    for position in range(length):
        for column in range(width):
            angle = position / 10000 ** ((column - column % 2) / width)
            table[position, column] = np.cos(angle) if column % 2 else np.sin(angle)
    return table


@pytest.mark.parametrize("width", [1, 2, 5, 8])
def test_the_position_table_is_the_formula(width):
    layer = PositionalEncoding(width, max_seq_length=30)
    assert layer.pe.shape == (30, width) and layer.pe.dtype == np.float32
    np.testing.assert_allclose(layer.pe, reference_positions(30, width), atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 6), (2, 3, 6), (2, 10, 6)])
@pytest.mark.parametrize("kind", ["sinusoidal", "learned"])
def test_positions_are_added_from_the_start_of_each_sequence(shape, kind):
    layer = PositionalEncoding(6, max_seq_length=10) if kind == "sinusoidal" else LearnedPositionalEmbedding(10, 6)
    table = layer.pe if kind == "sinusoidal" else layer.position_embedding.weight.data
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(layer(Tensor(x)).data, x + table[: shape[-2]], rtol=1e-6)


@pytest.mark.parametrize(
    "layer", [PositionalEncoding(6, max_seq_length=4), LearnedPositionalEmbedding(4, 6)], ids=["sinusoidal", "learned"]
)
@pytest.mark.parametrize(
    ("shape", "words"),
    [((5, 6), ["length 5", "4"]), ((3, 7), ["width 7", "6"]), ((6,), ["(6,)"]), ((1, 1, 3, 6), ["(1, 1, 3, 6)"])],
)
def test_sequences_that_do_not_fit_say_why(layer, shape, words):
    with pytest.raises(ValueError) as error:
        layer(Tensor(np.zeros(shape)))
    assert all(word in str(error.value) for word in words), error.value


def test_ids_in_the_place_of_vectors_are_a_type_error():
    with pytest.raises(TypeError, match="Embedding"):
        PositionalEncoding(3)([[1, 2, 3]])


def test_gradients_flow_through_learned_positions():
    layer = LearnedPositionalEmbedding(5, 3)
    x = Tensor(np.zeros((4, 2, 3)), requires_grad=True)
    layer(x).sum().backward()
    np.testing.assert_array_equal(x.grad.data, np.ones((4, 2, 3)))
    np.testing.assert_array_equal(layer.position_embedding.weight.grad.data, [[4] * 3] * 2 + [[0] * 3] * 3)


def test_dropout_works_in_training_only():
    layer = PositionalEncoding(100, max_seq_length=50, dropout=0.25)
    x = Tensor(np.full((50, 100), 5.0))
    assert (layer(x).data == 0).mean() == pytest.approx(0.25, abs=0.05)
    layer.eval()
    np.testing.assert_allclose(layer(x).data, 5 + layer.pe, rtol=1e-6)


def test_the_sinusoidal_table_is_saved_and_not_trained():
    layer = PositionalEncoding(4, max_seq_length=3)
    assert list(layer.parameters()) == [] and "pe" in layer.state_dict()


def test_the_heat_map_is_a_figure():
    matplotlib = pytest.importorskip("matplotlib", reason="drawing is optional for the package")
    matplotlib.use("Agg")
    figure = PositionalEncoding(8, max_seq_length=20).visualize_encoding()
    assert figure.axes[0].images[0].get_array().shape == (20, 8)


# measuring


def test_the_profiler_reports_every_pair_of_sizes():
    report = EmbeddingProfiler(repeats=2).measure_lookup_performance(Embedding(50, 16), [8, 2], [32])
    assert list(report) == ["batch_8_seq_32", "batch_2_seq_32"]
    entry = report["batch_8_seq_32"]
    assert list(entry) == [
        "batch_size",
        "seq_length",
        "total_tokens",
        "lookup_time_ms",
        "tokens_per_second",
        "input_memory_mb",
        "output_memory_mb",
        "memory_bandwidth_mb_s",
        "time_per_token_us",
    ]
    assert entry["total_tokens"] == 256 and entry["lookup_time_ms"] > 0
    assert entry["output_memory_mb"] == pytest.approx(256 * 16 * 4 / 1024**2)


def test_memory_scaling_and_the_comparison_of_positions():
    profiler = EmbeddingProfiler(repeats=2)
    scaling = profiler.analyze_memory_scaling([500], [64, 128])
    assert list(scaling) == ["vocab_500_dim_64", "vocab_500_dim_128"]
    entry = scaling["vocab_500_dim_64"]
    assert set(entry) == {"vocab_size", "embedding_dim", "total_parameters", "memory_mb", "lookup_time_ms"}
    assert entry["total_parameters"] == 32_000 and entry["memory_mb"] == pytest.approx(32_000 * 4 / 1024**2)
    compared = profiler.compare_positional_encodings(seq_length=10, embedding_dim=8)
    assert set(compared) == {"sinusoidal", "learned"}
    for kind, trained in [("sinusoidal", 0), ("learned", 80)]:
        assert compared[kind]["parameters"] == trained
        assert compared[kind]["deterministic"] is compared[kind]["extrapolation"] is (kind == "sinusoidal")
        assert compared[kind]["memory_usage_mb"] == pytest.approx(320 / 1024**2)
        assert compared[kind]["computation_time_ms"] > 0


def test_the_system_design_is_printed_and_returned(capsys):
    report = analyze_embedding_system_design({"tiny": (1024, 256, 1_048_576)})
    assert report["tiny"] == {
        "parameters": 262_144,
        "memory_mb": 1.0,
        "share": 0.25,
        "training_memory_mb": 4.0,
        "row_kb": 1.0,
    }
    assert "tiny" in capsys.readouterr().out


def test_the_lookup_race_agrees_with_itself():
    (row,) = module.benchmark_lookup(vocab_sizes=[32], tokens=300, embedding_dim=4, repeats=1)
    assert row["ratio"] == pytest.approx(row["one_hot_ms"] / row["lookup_ms"])


# together


def test_text_becomes_vectors_as_the_readme_says():
    tokenizer = CharTokenizer()
    embedding = Embedding(vocab_size=tokenizer.vocab_size, embedding_dim=256)
    pos_encoding = PositionalEncoding(embedding_dim=256, max_seq_length=512)
    pos_embeddings = pos_encoding(embedding(tokenizer.encode("Hello world!")))
    assert pos_embeddings.shape == (12, 256)
    pos_embeddings.sum().backward()
    counts = np.bincount(tokenizer.encode("Hello world!"), minlength=tokenizer.vocab_size)
    np.testing.assert_array_equal(embedding.weight.grad.data[:, 0], counts)
