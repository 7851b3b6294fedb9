"""What training does to gradients, under the names that ``torch.nn.utils`` gives it."""

from tinytorch._face import face

__getattr__, __dir__ = face(__name__, "optimizers")
