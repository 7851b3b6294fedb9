"""Layers, activations and losses under the names that ``torch.nn`` gives them."""

from tinytorch._face import face
from tinytorch.nn import functional as functional
from tinytorch.nn import utils as utils

__getattr__, __dir__ = face(
    __name__, "activations", "layers", "losses", "spatial", "embeddings", "attention", "transformers"
)
