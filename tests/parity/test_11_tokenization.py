"""Module 11 against tiktoken: GPT-2's files give GPT-2's ids, on every character and on every text tried.

GPT-2's files are the data set ``gpt2``, which is fetched once.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tiktoken_ext import openai_public

from tinytorch.core.tokenization import BPETokenizer, shadow
from tito.data.store import get

SOURCE = Path(__file__).parents[2] / "modules" / "11_tokenization" / "tokenization_dev.py"
CHARACTERS = [chr(code) for code in [*range(0xD800), *range(0xE000, 0x110000)]]
END = "<|endoftext|>"


@pytest.fixture(scope="module")
def ours() -> BPETokenizer:
    folder = get("gpt2")
    return BPETokenizer.from_gpt2(folder / "encoder.json", folder / "vocab.bpe")


@pytest.fixture(scope="module")
def theirs() -> tiktoken.Encoding:
    """tiktoken's own ``gpt2``, its files those of our cache."""
    folder = get("gpt2")

    def local(**urls: str) -> dict[bytes, int]:
        return data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")
        patch.setattr(openai_public, "data_gym_to_mergeable_bpe_ranks", local)
        return tiktoken.Encoding(**openai_public.gpt2())


def same_ids(ours: BPETokenizer, theirs: tiktoken.Encoding, text: str) -> None:
    expected = theirs.encode_ordinary(text)
    ids = ours.encode(text)
    if ids != expected:
        at = next((i for i, (a, b) in enumerate(zip(ids, expected, strict=False)) if a != b), -1)
        pytest.fail(f"ids differ from number {at} on, near {theirs.decode(expected[max(0, at - 2) : at + 3])!r}")


def test_vocabulary(ours: BPETokenizer, theirs: tiktoken.Encoding) -> None:
    assert ours.vocab_size == theirs.n_vocab == 50257
    assert ours.special_tokens == {END: theirs.eot_token}
    for number, token in enumerate(ours.vocab):
        assert theirs.decode_single_token_bytes(number) == token


def test_every_code_point_is_in_the_class_that_tiktoken_puts_it_in() -> None:
    ranks = {bytes([byte]): byte for byte in range(256)}
    everything = "".join(CHARACTERS)

    def matches(pattern: str) -> set[str]:
        encoding = tiktoken.Encoding("probe", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        return set(encoding.decode(encoding.encode_ordinary(everything)))  # what no piece matches is left out

    letters, numbers, spaces = matches(r"\p{L}"), matches(r"\p{N}"), matches(r"\s")
    for character in CHARACTERS:
        stand_in = shadow(character)
        assert stand_in.isascii() and len(stand_in) == 1
        assert stand_in.isalpha() == (character in letters), f"U+{ord(character):04X}"
        assert stand_in.isdigit() == (character in numbers), f"U+{ord(character):04X}"
        assert (stand_in in " \t\n\r\f\v") == (character in spaces), f"U+{ord(character):04X}"


def test_every_code_point_has_the_same_ids(ours: BPETokenizer, theirs: tiktoken.Encoding) -> None:
    for start in range(0, len(CHARACTERS), 10_000):
        same_ids(ours, theirs, "".join(f" {c}x" for c in CHARACTERS[start : start + 10_000]))


PARTS = [
    *"aeiouxyzAEst0123456789 .,!?-_()[]{}'\"`\n\t\r\x0b\x1c\x1f\x7f\x00",
    *"éßñЖжαω中日本語한국हिन्दी٣٤½²Ⅷ€£°™𝟘𝔸",
    *("\u0301", "\u200b", "\u200d", "\ufe0f", "\u00a0", "\u0085", "\u2003", "\u2028", "\u3000", "\ufffd", "\U0010ffff"),
    *("🐇", "👩\u200d👩\u200d👧", "🇬🇧", "👍🏽", "\U00031350", "\U0001e4d0", "\U0001e4f0"),
    *("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "’s", "''", "'", "' s"),
    *("the", " the", "The", " rabbit", "ing", "tion", "    ", "\n\n", "\r\n", " \n ", "12345678901234567890", END),
]


@pytest.mark.parametrize("seed", range(4))
def test_random_mixtures(ours: BPETokenizer, theirs: tiktoken.Encoding, seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(1500):
        same_ids(ours, theirs, "".join(random.choice(PARTS, size=random.integers(1, 60))))


@pytest.mark.parametrize("seed", range(2))
def test_random_code_points(ours: BPETokenizer, theirs: tiktoken.Encoding, seed: int) -> None:
    random = np.random.default_rng(seed)
    for limit in (0x80, 0x250, 0x3000, 0x30000, len(CHARACTERS)):
        for _ in range(100):
            same_ids(ours, theirs, "".join(CHARACTERS[i] for i in random.integers(0, limit, size=80)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n",
        " " * 1000,
        "a" * 3000,
        "ab" * 1500 + " " * 77 + "\n" * 33 + "end",
        "0123456789" * 300,
        "=" * 500,
        "的" * 700,
        "\ud800",
        "a\udc00\ud800b\ud83d\udc07",
        "I'll we've they're don't it's I'm he'd 'tis o'clock 'S 'LL",
    ],
)
def test_edge_cases(ours: BPETokenizer, theirs: tiktoken.Encoding, text: str) -> None:
    same_ids(ours, theirs, text)
    same_ids(ours, theirs, f"{text}x")
    same_ids(ours, theirs, f"x {text}")


def test_half_a_megabyte_of_english(ours: BPETokenizer, theirs: tiktoken.Encoding) -> None:
    from pydoc_data.topics import topics

    same_ids(ours, theirs, "\n".join(topics.values()))


def test_special_tokens(ours: BPETokenizer, theirs: tiktoken.Encoding) -> None:
    for text in (END, f"one{END}two {END}\n{END}{END}", f"<|endof{END}text|>", "<|endoftext|"):
        assert ours.encode(text) == theirs.encode_ordinary(text)
        assert ours.encode(text, allowed_special={END}) == theirs.encode(text, allowed_special={END})


def test_decoding(ours: BPETokenizer, theirs: tiktoken.Encoding) -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        ids = random.integers(0, theirs.n_vocab, size=50).tolist()
        assert ours.decode_bytes(ids) == theirs.decode_bytes(ids)
        assert ours.decode(ids) == theirs.decode(ids)


def test_a_saved_copy_gives_the_same_ids(ours: BPETokenizer, theirs: tiktoken.Encoding, tmp_path: Path) -> None:
    ours.save(tmp_path / "gpt2.json")
    copy = BPETokenizer.load(tmp_path / "gpt2.json")
    same_ids(copy, theirs, "The quick brown fox, naïve 東京 1234567890\n\n  'll")
    assert copy.encode(END, {END}) == [50256]


def quoted(name: str) -> Any:
    """The value that the lesson assigns to ``name``."""
    for node in ast.parse(SOURCE.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{SOURCE.name} has no {name}")


def test_the_lesson_quotes_gpt2_truly(ours: BPETokenizer) -> None:
    assert [len(ours.encode(sentence)) for sentence in quoted("RIGHTS").values()] == quoted("GPT2_TOKENS")
    for text in ("1000| 100|1| 100|2| 2024", "123|45|678|90"):
        assert f"`{text}`" in SOURCE.read_text(encoding="utf-8")
        assert [ours.decode([token]) for token in ours.encode(text.replace("|", ""))] == text.split("|")
    assert ours.encode("the rabbit") == [1169, 22746]
    assert "[1169, 22746]" in SOURCE.read_text(encoding="utf-8")
