"""What ``torch.utils`` has and this course builds."""

from tinytorch.utils import data as data
