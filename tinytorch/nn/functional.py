"""Activations, losses, attention and ``layer_norm``, under the names that ``torch.nn.functional`` gives them."""

from tinytorch._face import face

__getattr__, __dir__ = face(__name__, "activations", "losses", "attention", "transformers")
