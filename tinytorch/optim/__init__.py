"""Optimizers and learning-rate schedulers under the names that ``torch.optim`` gives them."""

from tinytorch._face import face
from tinytorch.optim import lr_scheduler as lr_scheduler

__getattr__, __dir__ = face(__name__, "optimizers")
