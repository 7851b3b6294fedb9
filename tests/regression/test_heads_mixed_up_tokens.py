"""reshape(B, H, T, D), instead of (B, T, H, D) and a swap, gave heads of the right shape that mixed up tokens."""

import numpy as np

from tinytorch.core.attention import MultiHeadAttention, causal_mask, merge_heads, split_heads
from tinytorch.core.tensor import Tensor


def test_a_token_stays_in_its_own_row_of_every_head():
    x = np.zeros((2, 4, 6), np.float32)
    x[1, 2] = [1, 2, 3, 4, 5, 6]  # one token of one sequence
    heads = split_heads(Tensor(x), 3).data  # (B, H, T, D)
    np.testing.assert_array_equal(heads[1, :, 2], [[1, 2], [3, 4], [5, 6]])
    assert np.count_nonzero(heads) == 6
    np.testing.assert_array_equal(merge_heads(Tensor(heads)).data, x)


def test_under_a_causal_mask_a_token_changes_only_itself_and_what_follows():
    layer = MultiHeadAttention(6, 3)
    x = np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32)
    before = layer(Tensor(x), mask=causal_mask(4)).data
    x[1, 2] += 1
    changed = np.any(np.abs(layer(Tensor(x), mask=causal_mask(4)).data - before) > 1e-5, axis=-1)
    np.testing.assert_array_equal(changed, [[False] * 4, [False, False, True, True]])
