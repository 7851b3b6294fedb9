"""XOR: one layer cannot learn it from any start, a hidden layer of 8 learns it from each, and one of 2 from some."""

import argparse

from tito.milestones import at_least, begin

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=at_least(1), default=120, help="steps of the optimizer for each network (120)")
parser.add_argument("--seeds", type=at_least(1), default=20, help="how many starts to try (20)")
parser.add_argument("--seed", type=at_least(0), default=0, help="the first of them (0)")
run = begin(__file__, parser)

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from tinytorch.core.activations import Tanh, sigmoid
from tinytorch.core.layers import Linear, Module, Sequential
from tinytorch.core.losses import BCEWithLogitsLoss
from tinytorch.core.optimizers import Adam
from tinytorch.core.tensor import Tensor, manual_seed

corners = Tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
differ = Tensor([[0.0], [1.0], [1.0], [0.0]])
seeds = range(run.settings.seed, run.settings.seed + run.settings.seeds)


def network(hidden: int) -> Module:
    """One layer, or two with so many units between them."""
    return Sequential(Linear(2, hidden), Tanh(), Linear(hidden, 1)) if hidden else Linear(2, 1)


def train(model: Module) -> tuple[list[float], list[int]]:
    """Train ``model`` on the four corners; returns for each step the loss, and how many corners were right."""
    criterion, optimizer = BCEWithLogitsLoss(), Adam(model.parameters(), lr=0.1)
    losses, right = [], []
    for _ in range(run.settings.steps):
        logits = model(corners)
        loss = criterion(logits, differ)
        model.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        right.append(int(((logits.data > 0) == (differ.data > 0)).sum()))
    return losses, right


widths = (0, 2, 8)
names = {0: "One layer", 2: "2 hidden units", 8: "8 hidden units"}
models, losses, right = {}, {}, {}
for hidden, seed in run.progress([(hidden, seed) for hidden in widths for seed in seeds], "Learning"):
    manual_seed(seed)
    models[hidden, seed] = network(hidden)
    losses[hidden, seed], right[hidden, seed] = train(models[hidden, seed])

best = {hidden: [max(right[hidden, seed]) for seed in seeds] for hidden in widths}
solved = {hidden: [seed for seed in seeds if right[hidden, seed][-1] == 4] for hidden in widths}
for hidden in widths:
    print(f"{names[hidden]:15} solved from {len(solved[hidden]):2} of {len(seeds)} starts; at best", end=" ")
    print(f"{min(best[hidden]) / 4:.0%} to {max(best[hidden]) / 4:.0%} of the corners are right")


def draw_region(axes: plt.Axes, model: Module) -> None:
    """How likely the model holds it that the two inputs differ, at every point between and around the corners."""
    ticks = np.linspace(-0.5, 1.5, 201)
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1)  # (201, 201, 2)
    likely = sigmoid(model(Tensor(grid))).data[..., 0]
    colours = LinearSegmentedColormap.from_list("blue to orange", ["C0", "white", "C1"])
    axes.imshow(likely, origin="lower", extent=(-0.5, 1.5) * 2, cmap=colours, vmin=0, vmax=1, interpolation="bilinear")
    for answer, marker in ((0, "o"), (1, "s")):
        points = corners.data[differ.data[:, 0] == answer]
        axes.scatter(*points.T, s=110, marker=marker, color=f"C{answer}", edgecolor="white", linewidth=1.8, zorder=3)
    axes.set(xticks=[0, 1], yticks=[0, 1])
    axes.spines[:].set_visible(True)


figure, panels = plt.subplots(2, 3, figsize=(10.8, 6.8), height_ratios=(3, 2))
for hidden, region, curves in zip(widths, *panels, strict=True):
    unsolved = [seed for seed in seeds if seed not in solved[hidden]]
    draw_region(region, models[hidden, (unsolved or seeds)[0]])
    region.set_title(f"{names[hidden]}: {len(solved[hidden])} of {len(seeds)} learn it")
    for seed in seeds:
        curves.plot(losses[hidden, seed], color="C2" if seed in solved[hidden] else "C4", linewidth=1, alpha=0.7)
    curves.set(ylim=(0, 1), xlabel="step", ylabel="" if hidden else "loss")
figure.supxlabel(
    "Above: one network of each kind, a failed one if there is any. Orange: sure that they differ. White: undecided.\n"
    "Below: every start; green ones end with all four corners right, red ones do not.",
    fontsize=9, x=0.01, ha="left",
)  # fmt: skip
run.save(figure, "figure.png")

run.record(solved={names[hidden]: len(solved[hidden]) for hidden in widths})
run.record(best_accuracy={names[hidden]: np.array(best[hidden]) / 4 for hidden in widths})
run.goal("one layer: 50 to 75 % of the corners right at its best, from every start", set(best[0]) <= {2, 3})
run.goal("8 hidden units: all corners right in the end, from every start", len(solved[8]) == len(seeds))
run.finish()
