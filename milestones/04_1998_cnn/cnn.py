"""A convolutional network learns to tell pictures apart: handwritten digits, or photographs of ten kinds of things."""

import argparse
import os
import resource
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when NumPy is imported: our layers share the pictures out to threads

from tito.milestones import at_least, begin

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", choices=["digits", "mnist", "cifar10"], default="digits", help="which pictures (digits)")
parser.add_argument("--epochs", type=at_least(1), help="how often it sees them all (digits: 15, mnist: 5, cifar10: 10)")
parser.add_argument("--seed", type=at_least(0), default=0, help="decides the first weights, the order, the crops (0)")
parser.add_argument("--resume", action="store_true", help="go on where the last run with these settings stopped")
run = begin(__file__, parser)

import matplotlib.pyplot as plt
import numpy as np

from tinytorch.core.activations import ReLU, softmax
from tinytorch.core.dataloader import (
    Compose,
    DataLoader,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    TensorDataset,
    channel_statistics,
)
from tinytorch.core.layers import Linear, Module, Sequential
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.optimizers import SGD, OneCycleLR
from tinytorch.core.spatial import BatchNorm2d, Conv2d, Flatten, MaxPool2d, set_num_threads
from tinytorch.core.tensor import Tensor, manual_seed
from tinytorch.core.training import Checkpoint, ProgressBar, Trainer, accuracy, confusion_matrix
from tito import data
from tito.milestones.training import Stopwatch, begin_or_resume


def lenet(kernel: int, side: int) -> Module:
    """Two convolutions that halve the picture, as LeNet-5 has them; ``side`` is what is left of 28 or 8 pixels."""
    same = kernel // 2
    features = [Conv2d(1, 16, kernel, padding=same), ReLU(), MaxPool2d(2)]
    features += [Conv2d(16, 32, kernel, padding=same), ReLU(), MaxPool2d(2), Flatten()]
    return Sequential(*features, Linear(32 * side**2, 120), ReLU(), Linear(120, 84), ReLU(), Linear(84, 10))


def convolved(channels: int, out: int) -> list[Module]:
    """A convolution, normalised."""
    return [Conv2d(channels, out, 3, padding=1, bias=False), BatchNorm2d(out), ReLU()]


def colour_net() -> Module:
    """Four convolutions for photographs of 32x32 pixels: 89,026 parameters."""
    eyes = [*convolved(3, 24), MaxPool2d(2), *convolved(24, 48), *convolved(48, 48), MaxPool2d(2)]
    return Sequential(*eyes, *convolved(48, 96), MaxPool2d(2), Flatten(), Linear(96 * 4 * 4, 10))


# the network; epochs, batch size, highest rate; what to do to pictures; the share to get right, in how many seconds
AUGMENT = [RandomHorizontalFlip(), RandomCrop(32, padding=4, fill=120)]
PLANS: dict[str, Any] = {
    "digits": (lambda: lenet(3, 2), 15, 32, 0.05, [], 0.98, 60),
    "mnist": (lambda: lenet(5, 7), 5, 64, 0.05, [], 0.99, 600),
    "cifar10": (colour_net, 10, 128, 0.2, AUGMENT, 0.82, 1200),
}

settings = run.settings
make_model, usual_epochs, batch_size, max_lr, changes, enough, time_limit = PLANS[settings.data]
settings.epochs = settings.epochs or usual_epochs
names = data.classes(settings.data) or tuple("0123456789")
arrays = data.load(settings.data)
set_num_threads(min(4, os.cpu_count() or 1))


def part(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The pictures of one part of the data, (N, C, H, W) of bytes, and their labels."""
    images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
    return (images if images.ndim == 4 else images[:, None]), labels.astype(np.int64)


(images, labels), (test_images, test_labels) = part("train"), part("test")
whiten = Normalize(*channel_statistics(images))
train = DataLoader(
    TensorDataset(images, labels), batch_size, shuffle=True, drop_last=True, seed=settings.seed, prefetch=2,
    transform=Compose([*changes, whiten]),
)  # fmt: skip
test = DataLoader(TensorDataset(test_images, test_labels), 250, transform=whiten)

manual_seed(settings.seed)
model = make_model()
optimizer = SGD(model.parameters(), lr=max_lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
steps = settings.epochs * len(train)
scheduler = OneCycleLR(optimizer, max_lr, total_steps=steps, pct_start=0.2, cycle_momentum=False)
path = run.folder / f"{settings.data}_{settings.epochs}_epochs_seed_{settings.seed}.npz"
watch = Stopwatch()
trainer = Trainer(
    model, CrossEntropyLoss(label_smoothing=0.1), optimizer, scheduler=scheduler, metrics={"accuracy": accuracy},
    callbacks=[watch, ProgressBar(), Checkpoint(path)],
)  # fmt: skip
if begin_or_resume(trainer, path, resume=settings.resume):
    print(f"Going on after epoch {trainer.epoch}, {watch.seconds:,.0f} s into training.")
print(f"{sum(p.size for p in model.parameters()):,} parameters. Each epoch is kept: after a stop, add --resume.")
history = trainer.fit(train, settings.epochs, validation=test)

likely = softmax(Tensor(trainer.predict(whiten(test_images)))).data  # (N, 10)
answers = likely.argmax(axis=1)
right = answers == test_labels
confusion = confusion_matrix(answers, test_labels, 10)
peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(f"Of {len(right):,} pictures that it had not seen, it names {right.sum():,} right: {right.mean():.2%}")

figure, (losses, errors, table) = plt.subplots(1, 3, figsize=(13.4, 4.4), width_ratios=(1, 1, 1.3))
epochs = range(1, settings.epochs + 1)
for prefix, what in (("", "training"), ("val_", "unseen pictures")):
    losses.plot(epochs, history[f"{prefix}loss"], label=what)
    errors.plot(epochs, 100 * (1 - np.array(history[f"{prefix}accuracy"])), label=what)
losses.set(title="Loss", xlabel="epoch")
errors.set(title="Named wrong, in %", xlabel="epoch", ylim=(0, None))
losses.legend()
mistakes = np.where(np.eye(10), 0, confusion)
table.imshow(np.ma.masked_equal(mistakes, 0), cmap="Oranges", vmin=0, vmax=max(1, 2 * mistakes.max()))
for (label, answer), count in np.ndenumerate(confusion):
    shade = "0.6" if label == answer else "0.1"
    table.text(answer, label, count or "", ha="center", va="center", fontsize=7, color=shade)
table.set(title="What it is (row), what it says", xticks=range(10), yticks=range(10))
table.set_xticklabels(names, rotation=90 if settings.data == "cifar10" else 0)
table.set_yticklabels(names)
run.save(figure, f"{settings.data}_learning.png")


def shown(image: np.ndarray) -> np.ndarray:
    """A picture (C, H, W) as matplotlib wants it."""
    return image[0] if len(image) == 1 else image.transpose(1, 2, 0)


kernels = model[0].weight.data  # (O, C, k, k)
kernels = 0.5 + kernels / (2 * np.abs(kernels).max(axis=(1, 2, 3), keepdims=True))  # a weight of 0 is grey
picture = test_images[:1]
responses = model[0](Tensor(whiten(picture))).data[0]  # (O, H, W)
strongest = np.abs(responses).max()
figure, panels = plt.subplots(len(kernels) // 8, 17, figsize=(13.4, len(kernels) // 8 * 0.95 + 0.6))
for panel in panels.flat:
    panel.set_axis_off()
panels[0, 0].imshow(shown(picture[0]))
for row, column, kernel, response in zip(*np.indices((len(panels), 8)).reshape(2, -1), kernels, responses, strict=True):
    panels[row, 2 * column + 1].imshow(shown(kernel), cmap="gray", vmin=0, vmax=1)
    panels[row, 2 * column + 2].imshow(response, cmap="RdBu_r", vmin=-strongest, vmax=strongest)
figure.suptitle("A picture, the windows of the first layer, and what each answers: red for yes, blue for the opposite")
run.save(figure, f"{settings.data}_filters.png")

chances = likely[np.arange(len(right)), test_labels]  # what it gave to the right answer
figure, panels = plt.subplots(3, 8, figsize=(10.8, 5.4))
for panel, i in zip(panels.flat, chances.argsort()[: panels.size], strict=True):
    panel.imshow(shown(test_images[i]))
    panel.set_axis_off()
    said = names[test_labels[i]] if right[i] else f"{names[answers[i]]}?\n{names[test_labels[i]]}"
    panel.set_title(said, color="0.5" if right[i] else "C4", fontsize=9, loc="center", pad=4)
figure.suptitle("The hardest of the unseen pictures: what it says, and below what it is")
run.save(figure, f"{settings.data}_hardest.png")

run.record(accuracy=right.mean(), learning_seconds=watch.seconds, peak_mb=peak_mb, history=history, confusion=confusion)
run.goal(
    f"{enough:.0%} of the pictures that it had not seen are named right ({right.mean():.2%})", right.mean() >= enough
)
if settings.epochs <= usual_epochs:
    run.goal(f"learnt in under {time_limit} seconds ({watch.seconds:,.1f})", watch.seconds < time_limit)
run.goal(f"in less than 4 GB of memory ({peak_mb / 1024:.2f})", peak_mb < 4096)
run.finish()
