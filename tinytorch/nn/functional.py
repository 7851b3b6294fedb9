"""Activations, `linear`, losses, convolutions, pooling, attention and norms, named as in ``torch.nn.functional``."""

from tinytorch._face import face

__getattr__, __dir__ = face(__name__, "activations", "layers", "losses", "spatial", "attention", "transformers")
