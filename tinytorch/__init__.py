"""TinyTorch: a deep-learning framework in NumPy, built module by module by the person who uses it.

``tinytorch.core`` holds what the modules of the course export; ``tinytorch.nn``, ``tinytorch.optim`` and
``tinytorch.utils.data`` show it under PyTorch's names. A part that is not built yet says which module brings it.
"""

from tinytorch import nn, optim, utils
from tinytorch._face import face, install_not_built_finder, is_built

__version__ = "0.1.0"

install_not_built_finder()

if is_built("autograd"):
    # plugs the recorder into the tensor's seam, so that `backward` works whichever part is imported first
    import tinytorch.core.autograd

__getattr__, __dir__ = face(__name__, "tensor", "autograd")
