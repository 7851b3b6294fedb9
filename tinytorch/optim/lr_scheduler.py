"""Learning-rate schedulers under the names that ``torch.optim.lr_scheduler`` gives them."""

from tinytorch._face import face

__getattr__, __dir__ = face(__name__, "optimizers")
