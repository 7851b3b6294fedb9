"""Module 11 as exported: tokenizers give back what went in, learn what BPE learns, and refuse damaged files."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinytorch.core import tokenization
from tinytorch.core.tokenization import (
    PRINTABLE_ASCII,
    BPETokenizer,
    CharTokenizer,
    byte_to_unicode,
    count_words,
    merge_ids,
    pad_batch,
    pretokenize,
    train_merges,
)

END = "<|endoftext|>"
TEXT = "the cat sat on the mat; the cat's hat, that hat! été, 東京 10 100 1000\n\n" * 3
MIXED = [*"aeths '’\n\t.1٣é東🐇\u0301\u00a0\u3000\x1c\x00", "the", " the", "'ll", "  ", END]


def mixtures(count: int, seed: int) -> list[str]:
    """Random texts of words, signs, white space and half of Unicode."""
    random = np.random.default_rng(seed)
    return ["".join(random.choice(MIXED, size=random.integers(1, 40))) for _ in range(count)]


# characters


def test_untrained_char_tokenizer_knows_printable_ascii() -> None:
    tokenizer = CharTokenizer()
    assert tokenizer.vocab_size == 4 + 95
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2, 3)
    assert tokenizer.decode(tokenizer.encode(PRINTABLE_ASCII)) == PRINTABLE_ASCII
    assert tokenizer.encode("é\n") == [1, 1]


def test_char_tokenizer_fitted_on_a_text_gives_it_back() -> None:
    tokenizer = CharTokenizer().fit(TEXT)
    assert tokenizer.vocab_size == 4 + len(set(TEXT))
    ids = tokenizer.encode(TEXT, add_special_tokens=True)
    assert ids[0] == tokenizer.bos_id and ids[-1] == tokenizer.eos_id
    assert tokenizer.decode(ids) == TEXT
    assert tokenizer.decode(ids, skip_special_tokens=False) == f"<BOS>{TEXT}<EOS>"


def test_special_names_in_a_text_are_ordinary_characters() -> None:
    tokenizer = CharTokenizer()
    assert tokenizer.decode(tokenizer.encode("<PAD>")) == "<PAD>"
    assert tokenizer.pad_id not in tokenizer.encode("<PAD>")


def test_repeated_characters_are_refused() -> None:
    with pytest.raises(ValueError, match="'a'"):
        CharTokenizer("abca")


@pytest.mark.parametrize("tokenizer", [CharTokenizer(), BPETokenizer()])
def test_wrong_ids_are_named(tokenizer: CharTokenizer | BPETokenizer) -> None:
    for ids, error, words in [
        ([5, -1], IndexError, r"ids\[1\] is -1"),
        (
            [tokenizer.vocab_size],
            IndexError,
            rf"ids\[0\] is {tokenizer.vocab_size}, .* 0 to {tokenizer.vocab_size - 1}",
        ),
        ([4.0], TypeError, r"ids\[0\] is 4.0"),
        (np.array([4.0]), TypeError, r"ids\[0\] is 4.0"),
        (["a"], TypeError, r"ids\[0\] is 'a'"),
    ]:
        with pytest.raises(error, match=words):
            tokenizer.decode(ids)  # type: ignore[arg-type]


@pytest.mark.parametrize("call", [CharTokenizer().encode, CharTokenizer().fit, BPETokenizer().encode, CharTokenizer])
def test_what_is_no_text_is_refused(call: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="expected a str, got bytes"):
        call(b"bytes")


def test_pad_batch_cuts_and_fills() -> None:
    assert pad_batch([[1, 2, 3], [4], []], 9, length=2).tolist() == [[1, 2], [4, 9], [9, 9]]
    assert pad_batch([[1, 2, 3], [4]], 9).tolist() == [[1, 2, 3], [4, 9, 9]]
    assert pad_batch([], 9).shape == (0, 0)
    assert pad_batch([[1]], 9).dtype == np.int64


# pieces


def test_pieces_join_to_the_text() -> None:
    for text in mixtures(300, seed=1):
        assert "".join(pretokenize(text)) == text


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("we'll SAY'S it's", ["we", "'ll", " SAY", "'", "S", " it", "'s"]),
        ("a  b   ", ["a", " ", " b", "   "]),
        ("a\n\nb\n", ["a", "\n", "\n", "b", "\n"]),
        ("3.14159 ½x", ["3", ".", "14159", " ½", "x"]),
        ("¿qué?! ok", ["¿", "qué", "?!", " ok"]),
        ("e\u0301", ["e", "\u0301"]),
        ("a\u00a0b\x1cc", ["a", "\u00a0", "b", "\x1c", "c"]),
        ("\U00031350\U0001e4d0x", ["\U00031350\U0001e4d0x"]),  # letters that Python 3.11 does not know
        ("", []),
    ],
)
def test_pieces(text: str, pieces: list[str]) -> None:
    assert pretokenize(text) == pieces


# training


def learn_slowly(words: dict[bytes, int], num_merges: int) -> list[tuple[int, int]]:
    """BPE as its definition says, on strings in which a character is a token."""
    texts, learned = [(word.decode("latin-1"), times) for word, times in words.items()], []
    while len(learned) < num_merges:
        totals: dict[str, int] = {}
        for word, times in texts:
            for here in range(len(word) - 1):
                totals[word[here : here + 2]] = totals.get(word[here : here + 2], 0) + times
        chosen = min(totals, key=lambda two: (-totals[two], two), default="")
        if totals.get(chosen, 0) < 2:
            return learned
        texts = [(word.replace(chosen, chr(256 + len(learned))), times) for word, times in texts]
        learned.append((ord(chosen[0]), ord(chosen[1])))
    return learned


@pytest.mark.parametrize("seed", range(8))
def test_training_learns_what_the_definition_says(seed: int) -> None:
    random = np.random.default_rng(seed)
    letters = random.integers(97, 99 + seed, size=(120, 9))
    words = {bytes(row[: random.integers(1, 10)].tolist()): int(random.integers(1, 6)) for row in letters}
    merges = train_merges(words, 150)
    assert list(merges) == learn_slowly(words, 150)
    assert list(merges.values()) == list(range(256, 256 + len(merges)))


def test_training_a_tokenizer() -> None:
    tokenizer = BPETokenizer().train(TEXT, 280)
    assert tokenizer.vocab_size == 280
    assert list(tokenizer.merges) == learn_slowly(count_words(TEXT), 24)
    assert len(tokenizer.encode(TEXT)) < len(TEXT.encode()) / 1.5


def test_training_ends_when_nothing_repeats_and_forgets_what_was() -> None:
    tokenizer = BPETokenizer([(1, 2)], [END])
    tokenizer.encode("ab")
    assert tokenizer.train("ab ab cd", 1000).vocab_size == 257
    assert tokenizer.special_tokens == {}
    assert tokenizer.encode("ab") == [256]


def test_training_needs_room_for_the_bytes() -> None:
    assert BPETokenizer().train(TEXT, 256).vocab_size == 256
    with pytest.raises(ValueError, match=r"vocab_size is 256; .* 257"):
        BPETokenizer().train(TEXT, 256, [END])


def test_special_tokens_separate_and_are_not_learned() -> None:
    tokenizer = BPETokenizer().train(f"ab{END}ab{END}ab", 300, [END])
    assert list(tokenizer.merges) == [(97, 98)]
    assert tokenizer.special_tokens == {END: 257}
    assert tokenizer.encode(f"ab{END}ab", allowed_special={END}) == [256, 257, 256]
    assert tokenizer.encode(END) == list(END.encode())
    assert tokenizer.decode([256, 257]) == f"ab{END}"


def test_wrong_vocabularies_are_refused() -> None:
    for arguments, error, words in [
        (([(256, 1)],), ValueError, r"merge 0 joins \(256, 1\)"),
        (([(1, 2), (1, -2)],), ValueError, r"merge 1 joins \(1, -2\)"),
        (([(1, 2), (1, 2)],), ValueError, "merge 1"),
        (((), [END, END]), ValueError, "twice"),
        (((), [""]), ValueError, "empty"),
        (((), END), TypeError, "list"),
        (((), (), range(255)), ValueError, "byte_order"),
        (((), (), [0] * 256), ValueError, "byte_order"),
    ]:
        with pytest.raises(error, match=words):
            BPETokenizer(*arguments)  # type: ignore[arg-type]


# encoding and decoding


@pytest.fixture(scope="module")
def trained() -> BPETokenizer:
    return BPETokenizer().train(TEXT, 330, [END])


def test_any_text_comes_back(trained: BPETokenizer) -> None:
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000, 97)]))
    for text in [everything, "", TEXT, *mixtures(300, seed=2)]:
        assert trained.decode(trained.encode(text)) == text
        assert trained.decode(trained.encode(text, {END})) == text


def test_encoding_applies_the_merges_in_the_order_learned(trained: BPETokenizer) -> None:
    for text in mixtures(300, seed=3):
        expected: list[int] = []
        for piece in pretokenize(text):
            spelled = piece.encode().decode("latin-1")
            for (left, right), new_id in trained.merges.items():
                spelled = spelled.replace(chr(left) + chr(right), chr(new_id))
            expected += map(ord, spelled)
        assert trained.encode(text) == expected
        assert trained.encode(text) == expected  # now from the cache


def test_bytes_that_are_no_text_become_replacement_characters(trained: BPETokenizer) -> None:
    assert trained.decode([0xC3]) == "\ufffd"
    assert trained.decode([0xFF, 97]) == "\ufffda"
    assert trained.decode_bytes([0xC3]) + trained.decode_bytes([0xA9]) == "é".encode()


def test_half_a_surrogate_pair_becomes_a_replacement_character(trained: BPETokenizer) -> None:
    assert trained.decode(trained.encode("a\ud800b")) == "a\ufffdb"
    assert trained.decode(trained.encode("\ud83d\udc07")) == "🐇"
    assert BPETokenizer().train("\ud800 \ud800", 300).vocab == BPETokenizer().train("\ufffd \ufffd", 300).vocab


def test_unknown_special_tokens_are_refused(trained: BPETokenizer) -> None:
    with pytest.raises(ValueError, match=r"'<\|no\|>' is no special token"):
        trained.encode("a", allowed_special={"<|no|>"})


def test_ids_do_not_share_memory_with_the_cache(trained: BPETokenizer) -> None:
    ids = trained.encode("hat")
    again = list(ids)
    ids.append(7)
    assert trained.encode("hat") == again


def test_the_cache_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenization, "CACHED_PIECES", 3)
    tokenizer = BPETokenizer()
    assert tokenizer.decode(tokenizer.encode("a b c d e f")) == "a b c d e f"
    assert len(tokenizer.cache) == 3


def test_a_piece_of_a_million_bytes_is_no_problem() -> None:
    start = time.process_time()
    assert len(merge_ids(b"ab" * 500_000, {(97, 98): 256, (256, 256): 257})) == 250_000
    assert time.process_time() - start < 15


def test_half_a_megabyte_trains_and_encodes_fast() -> None:
    from pydoc_data.topics import topics

    text = "\n".join(topics.values())
    start = time.process_time()
    tokenizer = BPETokenizer().train(text, 256 + 2000)
    assert time.process_time() - start < 15
    seconds = []
    for _ in range(4):
        start = time.process_time()
        ids = tokenizer.encode(text)
        seconds.append(time.process_time() - start)
    assert len(text) / min(seconds) > 1e6, f"{len(text) / min(seconds) / 1e6:.2f} MB/s"
    assert tokenizer.decode(ids) == text


# files


def test_files_give_back_the_same_tokenizer(trained: BPETokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    swapped = BPETokenizer([(1, 0)], ["é", END], [*range(255, -1, -1)])
    for bpe in (trained, swapped):
        bpe.save(path)
        back = BPETokenizer.load(path)
        assert (back.vocab, back.merges, back.special_tokens) == (bpe.vocab, bpe.merges, bpe.special_tokens)
        assert back.encode(TEXT + END, {END}) == bpe.encode(TEXT + END, {END})
    characters = CharTokenizer().fit(TEXT + "\ud800")
    characters.save(path)
    assert CharTokenizer.load(path).vocab == characters.vocab
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]


@pytest.mark.parametrize("kind", [CharTokenizer, BPETokenizer])
def test_a_save_that_fails_leaves_the_old_file(
    kind: type[CharTokenizer | BPETokenizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tokenizer.json"
    kind().save(path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        kind().save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "change",
    [
        {"format": "CharTokenizer"},
        {"version": 2},
        {"merges": [[97, 98], [97, 98]]},
        {"merges": [[97, 300]]},
        {"merges": [[97]]},
        {"merges": [["a", "b"]]},
        {"merges": [[97.0, 98]]},
        {"merges": 7},
        {"byte_order": list(range(255))},
        {"byte_order": list(range(1, 257))},
        {"special_tokens": [7]},
        {"special_tokens": "end"},
        {"byte_order": None},
    ],
)
def test_changed_files_are_refused(change: dict[str, Any], trained: BPETokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    trained.save(path)
    contents = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(contents | change), encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        BPETokenizer.load(path)
    path.write_text(json.dumps({key: contents[key] for key in contents if key not in change}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        BPETokenizer.load(path)


@pytest.mark.parametrize("kind", [CharTokenizer, BPETokenizer])
def test_damaged_files_are_refused(kind: type[CharTokenizer | BPETokenizer], tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    kind().save(path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole[:40], b"\xff" + whole, b"[1]", b"null", b"text"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"tokenizer\.json"):
            kind.load(path)
    other = BPETokenizer if kind is CharTokenizer else CharTokenizer
    other().save(path)
    with pytest.raises(ValueError, match=kind.__name__):
        kind.load(path)
    for wrong in ({}, {"characters": "aa"}, {"characters": ["ab"]}):
        path.write_text(json.dumps({"format": "CharTokenizer", "version": 1} | wrong), encoding="utf-8")
        with pytest.raises(ValueError, match=r"tokenizer\.json"):
            CharTokenizer.load(path)


# GPT-2's file format


def write_gpt2_files(tokenizer: BPETokenizer, folder: Path) -> tuple[Path, Path]:
    """``tokenizer`` in the two files that GPT-2's tokenizer was published in; its bytes must be in GPT-2's order."""
    characters = byte_to_unicode()
    count = 256 + len(tokenizer.merges)
    names = ["".join(characters[byte] for byte in token) for token in tokenizer.vocab[:count]]
    encoder = {name: number for number, name in enumerate(names)} | tokenizer.special_tokens
    encoder_json, vocab_bpe = folder / "encoder.json", folder / "vocab.bpe"
    encoder_json.write_text(json.dumps(encoder), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{names[left]} {names[right]}" for left, right in tokenizer.merges)]
    vocab_bpe.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return encoder_json, vocab_bpe


@pytest.fixture
def gpt2_like(trained: BPETokenizer) -> BPETokenizer:
    order = list(byte_to_unicode())
    place = {byte: number for number, byte in enumerate(order)}
    merges = [(place.get(left, left), place.get(right, right)) for left, right in trained.merges]
    return BPETokenizer(merges, [END], order)


def test_gpt2_files(gpt2_like: BPETokenizer, tmp_path: Path) -> None:
    read = BPETokenizer.from_gpt2(*write_gpt2_files(gpt2_like, tmp_path))
    assert (read.vocab, read.merges) == (gpt2_like.vocab, gpt2_like.merges)
    assert read.special_tokens == {END: read.vocab_size - 1}
    assert read.encode("!") == [0]
    for text in [TEXT, *mixtures(50, seed=4)]:
        assert read.encode(text) == gpt2_like.encode(text)
        assert read.decode(read.encode(text)) == text


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("vocab.bpe", "#version: 0.2\n", ""),
        ("vocab.bpe", "t h\n", "t\n"),
        ("vocab.bpe", "t h\n", "t h e\n"),
        ("vocab.bpe", "t h\n", ""),
        ("vocab.bpe", "t h\n", "t 字\n"),
        ("encoder.json", '"A": 32', '"A": 33'),
        ("encoder.json", '"A": 32', '"A": "32"'),
        ("encoder.json", '"A": 32', '"B": 32'),
        ("encoder.json", '{"!"', '{!"'),
        ("encoder.json", "{", "[{"),
    ],
)
def test_damaged_gpt2_files_are_refused(gpt2_like: BPETokenizer, tmp_path: Path, file: str, old: str, new: str) -> None:
    paths = write_gpt2_files(gpt2_like, tmp_path)
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=r"encoder\.json|vocab\.bpe"):
        BPETokenizer.from_gpt2(*paths)
