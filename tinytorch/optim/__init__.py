"""Optimizers and learning-rate schedulers under the names that ``torch.optim`` gives them."""

from tinytorch._face import face

__getattr__, __dir__ = face(__name__, "optimizers")
