"""A perceptron learns to tell two kinds of irises apart, and two digits; and meets two kinds that it never can."""

import argparse

from tito.milestones import at_least, begin

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=at_least(1), default=100, help="how often it may see every example (100)")
parser.add_argument("--seed", type=at_least(0), default=0, help="decides the order in which they come (0)")
run = begin(__file__, parser)

import matplotlib.pyplot as plt
import numpy as np

from tinytorch.core.layers import Linear
from tinytorch.core.tensor import Tensor, manual_seed
from tito import data


def perceptron(inputs: int) -> Linear:
    """One neuron that knows nothing yet: every weight is 0."""
    neuron = Linear(inputs, 1)
    neuron.weight.data[:] = 0
    neuron.bias.data[:] = 0
    return neuron


def learn(neuron: Linear, examples: np.ndarray, answers: np.ndarray) -> list[int]:
    """Rosenblatt's rule, until an epoch without a mistake; returns the number of mistakes in each epoch.

    An answer is +1 or -1, and the neuron is right if its output has the same sign. After a mistake, and only then, the
    example is added to the weights, or taken away from them.
    """
    mistakes = []
    for _ in run.progress(range(run.settings.epochs), "Learning"):
        mistakes.append(0)
        for i in order.permutation(len(examples)):
            if answers[i] * neuron(Tensor(examples[i])).item() <= 0:
                neuron.weight.data += answers[i] * examples[i]
                neuron.bias.data += answers[i]
                mistakes[-1] += 1
        if mistakes[-1] == 0:
            break
    return mistakes


def is_right(neuron: Linear, examples: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """For each example, whether it is on its own side of the line."""
    return answers * neuron(Tensor(examples)).data[:, 0] > 0


def either(examples: np.ndarray, labels: np.ndarray, no: int, yes: int) -> tuple[np.ndarray, np.ndarray]:
    """The examples with one of these two labels, and their answers: -1 for ``no``, +1 for ``yes``."""
    chosen = np.isin(labels, [no, yes])
    return examples[chosen], np.where(labels[chosen] == yes, 1, -1)


order = manual_seed(run.settings.seed)
iris, digits = data.load("iris"), data.load("digits")
petals = iris["measurements"][:, 2:]
train, test = (digits[f"{part}_images"].reshape(-1, 64).astype(np.float32) for part in ("train", "test"))

two_apart = either(petals, iris["labels"], 0, 1)  # setosa, versicolor
two_mixed = either(petals, iris["labels"], 1, 2)  # versicolor, virginica
line, lost_line, reader = perceptron(2), perceptron(2), perceptron(64)
mistakes = {
    "versicolor or virginica": learn(lost_line, *two_mixed),
    "a 1 or an 8": learn(reader, *either(train, digits["train_labels"], 1, 8)),
    "setosa or versicolor": learn(line, *two_apart),
}
read = is_right(reader, *either(test, digits["test_labels"], 1, 8))

for task, counts in mistakes.items():
    print(f"{task:23}  {sum(counts):5} mistakes in {len(counts):3} epochs, {counts[-1]} in the last")
print(f"Of {len(read)} digits 1 and 8 that it had not seen, it reads {read.sum()} right.")


def draw(axes: plt.Axes, neuron: Linear, flowers: np.ndarray, answers: np.ndarray, names: list[str]) -> None:
    """The flowers, with a ring around those that the neuron gets wrong, and the line where its output is 0."""
    for sign, marker, name in zip((-1, 1), "os", names, strict=True):
        axes.scatter(*flowers[answers == sign].T, s=42, marker=marker, linewidth=0.6, label=name)
    wrong = flowers[~is_right(neuron, flowers, answers)]
    if wrong.size:
        axes.scatter(*wrong.T, s=130, facecolor="none", edgecolor="C4", linewidth=1.5, label="wrong")
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim(), xlabel="petal length (cm)", ylabel="petal width (cm)")
    length, width = neuron.weight.data[0]
    ends = np.array(axes.get_xlim())
    axes.plot(ends, -(length * ends + neuron.bias.data[0]) / width, color="0.25", linewidth=1.4)
    axes.legend(handletextpad=0.1)


figure, ((apart, mixed), (curves, weights)) = plt.subplots(2, 2, figsize=(9.6, 8))
draw(apart, line, *two_apart, ["setosa", "versicolor"])
draw(mixed, lost_line, *two_mixed, ["versicolor", "virginica"])
apart.set_title("A line divides them, and it has found one")
mixed.set_title("No line divides them: it never comes to rest")
for (task, counts), colour in zip(mistakes.items(), ("C4", "C3", "C0"), strict=True):
    curves.plot(range(1, len(counts) + 1), counts, color=colour, label=task)
curves.set(xlabel="epoch", title="Mistakes in each epoch", ylim=0)
curves.legend()
most = abs(reader.weight.data).max()
weights.imshow(reader.weight.data.reshape(8, 8), cmap="PuOr", vmin=-most, vmax=most)
weights.set(xticks=[], yticks=[], title="The weights of the 64 pixels of a digit")
weights.set_xlabel("where ink speaks for an 8 (violet) or a 1 (orange)")
weights.spines[:].set_visible(False)
run.save(figure, "figure.png")

run.record(mistakes=mistakes, read_right=read.mean())
run.goal("setosa or versicolor: an epoch without a mistake", mistakes["setosa or versicolor"][-1] == 0)
run.goal("a 1 or an 8: an epoch without a mistake", mistakes["a 1 or an 8"][-1] == 0)
run.goal("versicolor or virginica: not one epoch without a mistake", min(mistakes["versicolor or virginica"]) > 0)
run.finish()
