"""Module 12, embeddings: values and gradients equal PyTorch's."""

import numpy as np
import pytest
import torch

from tinytorch.core.embeddings import Embedding, LearnedPositionalEmbedding
from tinytorch.core.tensor import Tensor


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("padding_idx", [None, 0, 3])
@pytest.mark.parametrize(("vocab_size", "shape"), [(5, (7,)), (5, (3, 4)), (300, (2, 3, 5)), (5, ())])
def test_lookup_and_its_gradient(dtype, padding_idx, vocab_size, shape):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, vocab_size, size=shape)
    upstream = rng.normal(size=(*shape, 6)).astype(dtype)
    ours, theirs = Embedding(vocab_size, 6, padding_idx), torch.nn.Embedding(vocab_size, 6, padding_idx)
    ours.weight.data = ours.weight.data.astype(dtype)
    with torch.no_grad():
        theirs.weight = torch.nn.Parameter(torch.from_numpy(ours.weight.data.copy()))
    out, expected = ours(ids), theirs(torch.from_numpy(np.asarray(ids)))
    np.testing.assert_array_equal(out.data, expected.detach().numpy())
    out.backward(upstream)
    expected.backward(torch.from_numpy(upstream))
    np.testing.assert_allclose(ours.weight.grad.data, theirs.weight.grad.numpy(), rtol=1e-5, atol=1e-6)
    assert ours.weight.grad.dtype == dtype


def test_token_and_position_table_together():
    rng = np.random.default_rng(1)
    ids, upstream = rng.integers(0, 50, size=(4, 7)), rng.normal(size=(4, 7, 8)).astype(np.float32)
    tokens, positions = Embedding(50, 8), LearnedPositionalEmbedding(16, 8)
    table = torch.from_numpy(tokens.weight.data.copy()).requires_grad_()
    places = torch.from_numpy(positions.position_embedding.weight.data.copy()).requires_grad_()
    out = positions(tokens(ids))
    expected = torch.nn.functional.embedding(torch.from_numpy(ids), table) + places[:7]
    np.testing.assert_allclose(out.data, expected.detach().numpy(), rtol=1e-6)
    out.backward(Tensor(upstream))
    expected.backward(torch.from_numpy(upstream))
    np.testing.assert_allclose(tokens.weight.grad.data, table.grad.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(positions.position_embedding.weight.grad.data, places.grad.numpy(), rtol=1e-5, atol=1e-6)
