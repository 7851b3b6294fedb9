"""Data sets, transforms and the loader under the names that ``torch.utils.data`` gives them."""

from tinytorch._face import face

__getattr__, __dir__ = face(__name__, "dataloader")
