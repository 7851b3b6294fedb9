"""The most famous bug of home-made embeddings: grad[ids] += g keeps only one of the gradients of a repeated id."""

import numpy as np

from tinytorch.core.embeddings import Embedding, LearnedPositionalEmbedding
from tinytorch.core.tensor import Tensor


def test_a_token_that_stands_twice_learns_twice():
    layer = Embedding(6, 2)
    layer([[3, 3], [1, 3]]).sum().backward()
    assert layer.weight.grad.data[:, 0].tolist() == [0, 1, 0, 3, 0, 0]


def test_a_row_picked_twice_by_indexing_gets_both_gradients():
    x = Tensor(np.arange(4.0), requires_grad=True)
    x[np.array([2, 2, 0])].sum().backward()
    assert x.grad.data.tolist() == [1, 0, 2, 0]


def test_positions_shared_by_a_batch_add_up():
    layer = LearnedPositionalEmbedding(4, 2)
    layer(Tensor(np.zeros((5, 3, 2)))).sum().backward()
    assert layer.position_embedding.weight.grad.data[:, 0].tolist() == [5, 5, 5, 0]
