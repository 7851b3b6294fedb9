"""Module 16, tinygpt: what the exported file must do."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise

import numpy as np
import pytest

from tinytorch.core.autograd import no_grad
from tinytorch.core.generation import Sampling
from tinytorch.core.losses import cross_entropy
from tinytorch.core.tensor import Tensor, default_generator, manual_seed
from tinytorch.core.tinygpt import (
    IGNORED,
    FirstBatches,
    LanguageModelLoss,
    LanguageModelTrainer,
    SampleWriter,
    TextGenerator,
    TextWindows,
    TinyGPT,
    TinyGPTConfig,
    accumulate_by_tokens,
    decay_groups,
    next_token_targets,
    training_windows,
    until_stop,
    validation_windows,
    whole_characters,
)
from tinytorch.core.tokenization import BPETokenizer, CharTokenizer
from tinytorch.core.training import Callback, Checkpoint, evaluating, read_checkpoint, write_checkpoint
from tinytorch.core.transformers import Transformer

SMALL = TinyGPTConfig(vocab_size=13, max_seq_length=8, num_layers=2, num_heads=2, embed_dim=8)
TEXT = np.random.default_rng(16).integers(0, 13, size=400)


def model_of(config=SMALL, seed=0):
    manual_seed(seed)
    return TinyGPT(config)


def in_double(model):
    for parameter in model.parameters():
        parameter.data = parameter.data.astype(np.float64)
    return model


# what it is built from


def test_a_config_says_everything_once():
    assert SMALL == TinyGPTConfig(13, 8, 2, 2, 8) != replace(SMALL, num_heads=4)
    assert len({SMALL, replace(SMALL)}) == 1
    assert replace(SMALL, embed_dim=16).feed_forward_dim == 64
    assert eval(repr(SMALL)) == SMALL
    with pytest.raises(FrozenInstanceError):
        SMALL.embed_dim = 9


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"vocab_size": 0}, ValueError, "vocab_size .*0"),
        ({"num_layers": -1}, ValueError, "num_layers .*-1"),
        ({"max_seq_length": 2.0}, TypeError, "max_seq_length .*2.0"),
        ({"embed_dim": "8"}, TypeError, "embed_dim .*'8'"),
        ({"hidden_dim": 0}, ValueError, "hidden_dim .*0"),
        ({"num_heads": 3}, ValueError, "embed_dim 8 .*num_heads 3"),
        ({"dropout": 1.0}, ValueError, "dropout .*1.0"),
        ({"dropout": math.nan}, ValueError, "dropout .*nan"),
    ],
)
def test_a_config_refuses_what_cannot_be_when_it_is_made(options, kind, words):
    with pytest.raises(kind, match=words):
        replace(SMALL, **options)


def test_the_model_is_the_transformer_of_these_sizes():
    config = TinyGPTConfig(13, 8, 3, 4, 8, hidden_dim=5, dropout=0.5, tie_weights=False)
    manual_seed(1)
    transformer = Transformer(13, 8, 4, 3, 5, 8, dropout=0.5, tie_weights=False)
    model = model_of(config, seed=1)
    assert isinstance(model, Transformer)
    mine, theirs = model.state_dict(), transformer.state_dict()
    assert list(mine) == list(theirs)
    for name, array in theirs.items():
        np.testing.assert_array_equal(mine[name], array, name)
    with evaluating(model), evaluating(transformer):
        np.testing.assert_array_equal(model(TEXT[:8]).data, transformer(TEXT[:8]).data)
    assert sum(model.parameters_by_part().values()) == sum(p.size for p in model.parameters())
    with pytest.raises(TypeError, match="TinyGPTConfig, got dict"):
        TinyGPT({"vocab_size": 13})


def test_a_model_goes_through_a_file(tmp_path):
    model = model_of(replace(SMALL, num_heads=4, dropout=0.1))
    model.save(tmp_path / "model.npz")
    again = TinyGPT.load(tmp_path / "model.npz")
    assert again.config == model.config
    with evaluating(model), evaluating(again):
        np.testing.assert_array_equal(again(TEXT[:8]).data, model(TEXT[:8]).data)
    for state in ({"x": 1}, {"config": {"vocab_size": 13}, "model": {}}, {"config": {"width": 3}, "model": {}}):
        write_checkpoint(tmp_path / "other.npz", state)
        with pytest.raises(ValueError, match=r"other\.npz holds no TinyGPT"):
            TinyGPT.load(tmp_path / "other.npz")


# the loss


def test_the_loss_is_the_mean_over_all_targets():
    rng = np.random.default_rng(2)
    logits, ids = rng.normal(size=(4, 6, 13)), rng.integers(1, 13, size=(4, 7))
    ids[1, 3:] = ids[2, 1:] = ids[3, 0] = 0  # the first token of the last text is no target
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    each = [-math.log(shares[b, t, ids[b, t + 1]]) for b in range(4) for t in range(6) if ids[b, t + 1]]
    loss = LanguageModelLoss(pad_id=0)
    assert loss.count(ids, 6) == len(each) == 14
    assert loss(Tensor(logits, np.float64), ids).item() == pytest.approx(np.mean(each), rel=1e-9)
    first_ones = [-math.log(shares[b, t, ids[b, t + 1]]) for b in range(4) for t in range(5)]
    assert LanguageModelLoss()(Tensor(logits, np.float64), ids[:, :6]).item() == pytest.approx(np.mean(first_ones))


def test_targets_keep_their_hands_off_the_ids():
    ids = np.array([[3, 0, 4]], np.uint8)
    targets = next_token_targets(ids, 3, pad_id=0)
    assert targets.tolist() == [[IGNORED, 4, IGNORED]] and targets.dtype == np.int64
    assert ids.tolist() == [[3, 0, 4]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_padding_gets_no_gradient(dtype):
    logits = Tensor(np.random.default_rng(3).normal(size=(2, 4, 13)), dtype, requires_grad=True)
    LanguageModelLoss(0)(logits, [[1, 2, 3, 0], [4, 5, 0, 0]]).backward()
    assert logits.grad.dtype == dtype
    assert (np.abs(logits.grad.data).sum(axis=-1) > 0).tolist() == [
        [True, True, False, False],
        [True, False, False, False],
    ]


@pytest.mark.parametrize(
    ("shape", "ids", "words"),
    [
        ((2, 4, 13), np.zeros((2, 3), int), r"\(2, 4, 13\).*\(2, 4\).*\(2, 3\)"),
        ((2, 4, 13), np.zeros((2, 6), int), r"\(2, 6\)"),
        ((2, 4, 13), np.zeros(4, int), r"\(4,\)"),
        ((2, 4, 13), np.zeros((2, 4), int), "padding"),
        ((1, 1, 13), np.ones((1, 1), int), "single token"),
    ],
)
def test_what_the_loss_refuses(shape, ids, words):
    with pytest.raises(ValueError, match=words):
        LanguageModelLoss(0)(Tensor(np.zeros(shape)), ids)


def test_the_models_gradients_are_those_of_finite_differences():
    model = in_double(model_of(replace(SMALL, num_layers=1)))
    rng = np.random.default_rng(5)
    for parameter in model.parameters():
        parameter.data += rng.normal(0, 0.5, size=parameter.shape)
    loss, ids = LanguageModelLoss(0), np.array([[1, 2, 3, 1, 7], [4, 4, 0, 0, 0]])
    loss(model(ids), ids).backward()
    for name, parameter in model.named_parameters():
        for place in list(np.ndindex(parameter.shape))[::17]:
            middle, ends = parameter.data[place], []
            for step in (1e-6, -1e-6):
                parameter.data[place] = middle + step
                with no_grad():
                    ends.append(loss(model(ids), ids).item())
            parameter.data[place] = middle
            slope = (ends[0] - ends[1]) / 2e-6
            assert parameter.grad.data[place] == pytest.approx(slope, rel=1e-4, abs=1e-7), f"{name} at {place}"


# windows


def test_windows_are_views_of_the_text():
    text = np.arange(300, dtype=np.uint16)
    dataset = TextWindows(text, 8)
    assert len(dataset) == 292
    assert np.shares_memory(dataset.windows, text)
    inputs, ids = dataset[np.array([291, 0])]
    assert inputs.dtype == ids.dtype == np.int64
    assert ids.tolist() == [list(range(291, 300)), list(range(9))]
    assert inputs.tolist() == [row[:-1] for row in ids.tolist()]


def test_windows_of_a_file_that_is_mapped(tmp_path):
    np.save(tmp_path / "text.npy", TEXT)
    mapped = TextWindows(np.load(tmp_path / "text.npy", mmap_mode="r"), 8)
    assert mapped[5][1].tolist() == TEXT[5:14].tolist()


@pytest.mark.parametrize("count", [9, 10, 16, 17, 100])
def test_validation_windows_ask_for_every_token_once(count):
    loader = validation_windows(np.arange(count), 8, batch_size=3)
    targets = [t for inputs, ids in loader for t in next_token_targets(ids, inputs.shape[-1]).ravel().tolist()]
    assert targets == list(range(1, 8 * ((count - 1) // 8) + 1))


def test_training_windows_depend_on_seed_and_epoch_alone():
    def starts(seed, epoch):
        loader = training_windows(np.arange(500), 8, batch_size=5, batches=4, seed=seed)
        loader.set_epoch(epoch)
        return tuple(int(row[0]) for inputs, _ in loader for row in inputs.tolist())

    orders = {starts(seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9 and starts(1, 2) == starts(1, 2)
    assert all(len(set(order)) == 20 for order in orders)
    assert max(max(order) for order in orders) > 400


def test_first_batches_of_a_loader_without_epochs():
    part = FirstBatches([1, 2, 3], 2)
    part.set_epoch(7)
    assert (len(part), list(part), list(part)) == (2, [1, 2], [1, 2])


# the trainer


def trainer_of(config=SMALL, steps=12, **options):
    return LanguageModelTrainer(model_of(config), steps, lr=1e-2, **options)


def test_decay_is_for_matrices():
    groups = decay_groups(model_of(), 0.3)
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert {p.ndim for p in groups[0]["params"]} == {2} and {p.ndim for p in groups[1]["params"]} == {1}
    assert sum(len(group["params"]) for group in groups) == len(list(model_of().parameters()))


def test_gradients_and_optimizer_stay_float32():
    trainer = trainer_of(pad_id=0)
    trainer.fit(training_windows(TEXT, 8, 4, 4), validation=validation_windows(TEXT, 8))
    for name, parameter in trainer.model.named_parameters():
        assert parameter.data.dtype == parameter.grad.data.dtype == np.float32, name
        for what, held in trainer.optimizer.state[parameter].items():
            assert np.ndim(held) == 0 or held.dtype == np.float32, f"{what} of {name}"
    assert len(trainer.optimizer.state) == len(list(trainer.model.parameters()))


def padded(*lengths):
    rows = np.zeros((len(lengths), 9), np.int64)
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = np.random.default_rng(length).integers(1, 13, size=length)
    return rows


def test_pieces_of_a_batch_weigh_as_much_as_their_tokens():
    ids = padded(9, 9, 2, 3)
    model, loss = in_double(model_of()), LanguageModelLoss(0)
    loss(model(ids[:, :-1]), ids).backward()
    whole = [parameter.grad.data.copy() for parameter in model.parameters()]
    model.zero_grad()
    accumulate_by_tokens(model, loss, [(Tensor(part[:, :-1]), Tensor(part)) for part in (ids[:2], ids[2:])])
    for (name, parameter), want in zip(model.named_parameters(), whole, strict=True):
        np.testing.assert_allclose(parameter.grad.data, want, rtol=1e-9, atol=1e-12, err_msg=name)


def test_one_large_batch_and_its_pieces_train_the_same_model():
    ids = padded(9, 9, 2, 3)
    trained = []
    for cuts in ([slice(0, 4)], [slice(0, 2), slice(2, 4)]):
        trainer = trainer_of(pad_id=0, accumulate=len(cuts), steps=5)
        trainer.fit([(Tensor(ids[cut, :-1]), Tensor(ids[cut])) for cut in cuts])
        assert trainer.step == 5
        trained.append(trainer)
    np.testing.assert_allclose(trained[1].history["loss"], trained[0].history["loss"], rtol=1e-4)
    for one, other in zip(trained[0].model.parameters(), trained[1].model.parameters(), strict=True):
        np.testing.assert_allclose(other.data, one.data, rtol=1e-3, atol=1e-5)


def test_perplexity_is_that_of_the_mean_loss():
    trainer = trainer_of(pad_id=0)
    batches = [(Tensor(part[:, :-1]), Tensor(part)) for part in (padded(9, 8), padded(2, 3), padded(4, 2))]
    with evaluating(trainer.model):
        sums = [
            cross_entropy(trainer.model(x), next_token_targets(ids, 8, 0), reduction="sum").item() for x, ids in batches
        ]
    mean = sum(sums) / 22
    found = trainer.evaluate(batches)
    assert found == {"loss": pytest.approx(mean, rel=1e-5), "perplexity": pytest.approx(math.exp(mean), rel=1e-5)}
    history = trainer.fit(batches, epochs=2, validation=batches)
    assert set(history) == {"loss", "lr", "perplexity", "val_loss", "val_perplexity"}
    np.testing.assert_allclose(history["perplexity"], np.exp(history["loss"]))
    np.testing.assert_allclose(history["val_perplexity"], np.exp(history["val_loss"]))


def test_fit_takes_as_many_epochs_as_there_are_steps():
    trainer = trainer_of(steps=10, accumulate=2)
    trainer.fit(training_windows(TEXT, 8, 4, batches=5))  # three steps an epoch
    assert (trainer.epoch, trainer.step) == (4, 12)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)
    with pytest.raises(ValueError, match="no length"):
        trainer_of().fit(iter(()))
    with pytest.raises(ValueError, match="total_steps"):
        trainer_of(steps=0)


class PowerCut(Callback):
    def __init__(self, step):
        self.step = step

    def on_batch_end(self, trainer):
        if trainer.step == self.step:
            raise ConnectionError("the power failed")


def test_a_run_that_was_killed_goes_on_to_the_same_bit(tmp_path):
    def run(*callbacks):
        config = replace(SMALL, dropout=0.2)
        return trainer_of(config, callbacks=[*callbacks, Checkpoint(path, every_epochs=None, every_steps=3)])

    path = tmp_path / "run.npz"
    data = {"loader": training_windows(TEXT, 8, 4, 4), "validation": validation_windows(TEXT[:100], 8)}
    smooth = run()
    smooth.fit(**data)
    with pytest.raises(ConnectionError):
        run(PowerCut(7)).fit(**data)
    assert TinyGPT.load(path).config == smooth.model.config
    resumed = run()
    resumed.resume(path)
    assert (resumed.epoch, resumed.step) == (1, 6)
    assert resumed.fit(**data) == smooth.history
    for (name, parameter), other in zip(resumed.model.named_parameters(), smooth.model.parameters(), strict=True):
        np.testing.assert_array_equal(parameter.data, other.data, name)


def test_a_checkpoint_of_other_heads_is_refused(tmp_path):
    first, other = trainer_of(), trainer_of(replace(SMALL, num_heads=4))
    write_checkpoint(tmp_path / "run.npz", first.state_dict())
    before = other.model.state_dict()
    with pytest.raises(ValueError, match="num_heads 2, not 4"):
        other.resume(tmp_path / "run.npz")
    for name, array in other.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name], name)
    assert read_checkpoint(tmp_path / "run.npz")["config"]["num_heads"] == 2


def test_it_learns_a_text_by_heart_and_recites_it():
    letters = CharTokenizer("abcdefgh ")
    text = "a bad cab had a deaf bee "
    ids = np.array(letters.encode(text * 4))
    manual_seed(0)
    model = TinyGPT(TinyGPTConfig(letters.vocab_size, 16, 1, 2, 32))
    trainer = LanguageModelTrainer(model, 150, lr=1e-2)
    history = trainer.fit(training_windows(ids, 16, 8, batches=75), validation=validation_windows(ids, 16))
    assert history["val_perplexity"][-1] < 1.5
    writer = TextGenerator(model, letters)
    assert writer.generate(text[:16], 20, sampling=Sampling(temperature=0)) == (text * 2)[16:36]


# text


@pytest.mark.parametrize(
    ("chunks", "pieces"),
    [
        ([b"\xf0\x9f", b"\x90\x87"], ["🐇"]),
        ([b"\xf0", b"\x9f", b"ab"], ["\ufffdab"]),
        ([b"", b""], []),
        ([b"ab\xc3"], ["ab", "\ufffd"]),
    ],
)
def test_characters_wait_for_their_last_byte(chunks, pieces):
    assert list(whole_characters(chunks)) == pieces


def first_stop(text, stops):
    return min((text.find(stop) for stop in stops if stop in text), default=len(text))


def test_stops_are_found_wherever_the_pieces_end():
    rng = np.random.default_rng(8)
    for _ in range(300):
        text = "".join(rng.choice(list("abc"), size=20))
        stops = ["".join(rng.choice(list("abc"), size=n)) for n in rng.integers(1, 5, size=2)]
        places = [0, *sorted(rng.integers(0, 20, size=6).tolist()), 20]
        pieces = [text[a:b] for a, b in pairwise(places)]
        given = list(until_stop(pieces, stops))
        assert "".join(given) == text[: first_stop(text, stops)] and all(given), (pieces, stops)


def test_text_is_given_as_soon_as_it_is_safe():
    given = []
    source = iter(["ab", "c", "d"])
    for piece in until_stop(source, ["bx"]):
        given.append((piece, source.__length_hint__()))
    assert given == [("a", 2), ("bc", 1), ("d", 0)]


def writer_of(tokenizer, **options):
    return TextGenerator(model_of(replace(SMALL, vocab_size=tokenizer.vocab_size, **options)), tokenizer)


def test_a_stream_is_the_text_in_pieces_and_disturbs_nothing():
    writer = writer_of(CharTokenizer("abcdefghi"), dropout=0.5)
    writer.model.blocks[0].eval()
    for prompt in ("abc", "abcdefghi" * 5):
        sampling = Sampling(temperature=3.0, seed=3)
        before = default_generator().bit_generator.state
        pieces = list(writer.stream(prompt, 30, sampling=sampling))
        assert "".join(pieces) == writer.generate(prompt, 30, sampling=sampling)
        assert default_generator().bit_generator.state == before
        assert writer.model.training and not writer.model.blocks[0].training


def test_bytes_never_come_as_half_a_character():
    tokenizer = BPETokenizer().train("ééé 🐇🐇🐇 ééé 🐇🐇🐇", 262)
    writer = writer_of(tokenizer)
    drawn = [writer.generate("é", 40, sampling=Sampling(temperature=9.0, seed=seed)) for seed in range(3)]
    assert len(set(drawn)) == 3 and all(text.encode().decode() == text for text in drawn)
    assert writer.prompt_ids("plain 🐇") == tokenizer.encode("plain 🐇")


@pytest.mark.parametrize(
    ("prompt", "kind", "words"),
    [
        ("", ValueError, "empty"),
        ("xax!x", ValueError, "'!', 'x'$"),
        (None, TypeError, "str"),
        (["a"], TypeError, "str"),
    ],
)
def test_a_bad_prompt_is_refused_before_anything_is_written(prompt, kind, words):
    writer = writer_of(CharTokenizer("abcdefghi"))
    for call in (writer.generate, writer.stream):
        with pytest.raises(kind, match=words):
            call(prompt, 3)


def test_model_and_tokenizer_must_belong_together():
    with pytest.raises(ValueError, match="7 tokens, the model 13"):
        TextGenerator(model_of(), CharTokenizer("abc"))


def test_stop_tokens_are_no_text():
    letters = CharTokenizer("abcdefghi")
    writer = writer_of(letters)
    text = writer.generate("a", 60, sampling=Sampling(temperature=9.0, seed=1))
    stops = letters.encode("d")
    assert "d" in text
    got = writer.generate("a", 60, sampling=Sampling(temperature=9.0, seed=1), stop_tokens=stops)
    assert got == text[: text.index("d")]


def test_samples_do_not_change_the_training():
    letters = CharTokenizer("abcdefghi")
    shown, trained = [], []
    for sampled in (True, False):
        model = model_of(replace(SMALL, dropout=0.2))
        writer = SampleWriter(TextGenerator(model, letters), "ab", 12, every_epochs=1, every_steps=3, show=shown.append)
        trainer = LanguageModelTrainer(model, 8, callbacks=[writer] if sampled else [])
        trainer.fit(training_windows(TEXT, 8, 4, batches=4))
        trained.append(trainer)
        if sampled:
            assert [step for step, _ in writer.samples] == [0, 3, 4, 6, 8]
            assert shown == [f"--- step {step}\nab{text}" for step, text in writer.samples]
    assert trained[0].history == trained[1].history
    with pytest.raises(ValueError, match="every_steps"):
        SampleWriter(TextGenerator(model, letters), every_steps=0)
