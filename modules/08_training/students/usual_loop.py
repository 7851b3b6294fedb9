# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# A wrong student: the loop as it stands in many programs. Every batch weighs the same, losses are divided by the number
# of batches, and after an evaluation everything is in training mode.

# %% nbgrader={"grade": false, "grade_id": "training-average", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class Average:
    """The mean of all numbers that came, whatever they weigh."""

    def __init__(self, total: float = 0.0, weight: float = 0.0) -> None:
        self.total, self.weight = total, weight

    def add(self, value: float, weight: float = 1.0) -> None:
        """One number more."""
        self.total += value
        self.weight += 1

    @property
    def value(self) -> float:
        """The mean of what was added so far; NaN if nothing was."""
        return self.total / max(self.weight, 1)

# %% nbgrader={"grade": false, "grade_id": "training-evaluating", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode, then training mode."""
    model.eval()
    with no_grad():
        yield
    model.train()

# %% nbgrader={"grade": false, "grade_id": "training-accumulate", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
Batch = tuple[Any, Any]
Loss = Callable[[Any, Any], Tensor]


def accumulate_gradients(model: Module, loss: Loss, group: Sequence[Batch]) -> list[tuple[Any, float]]:
    """Each batch counts the same."""
    pairs = []
    for inputs, targets in group:
        outputs = model(inputs)
        part = loss(outputs, targets)
        (part / len(group)).backward()
        pairs.append((outputs, float(part)))
    return pairs
