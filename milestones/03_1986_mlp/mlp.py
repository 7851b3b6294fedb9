"""A network with two hidden layers learns to read handwritten digits, by back-propagation."""

import argparse

from tito.milestones import at_least, begin

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", choices=["digits", "mnist"], default="digits", help="8x8 or 28x28 pixels (digits)")
parser.add_argument("--epochs", type=at_least(1), help="how often it sees every digit (digits: 30, mnist: 10)")
parser.add_argument("--seed", type=at_least(0), default=0, help="decides the first weights and the order (0)")
run = begin(__file__, parser)

import matplotlib.pyplot as plt
import numpy as np

from tinytorch.core.activations import ReLU, softmax
from tinytorch.core.layers import Linear, Sequential
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.optimizers import AdamW, OneCycleLR
from tinytorch.core.tensor import Tensor, manual_seed
from tinytorch.core.training import Batches, ProgressBar, Trainer, accuracy, confusion_matrix
from tito import data

# hidden units, epochs, batch size; the share to read right, in how many seconds
PLANS = {"digits": ((64, 32), 30, 32, 0.97, 30), "mnist": ((256, 128), 10, 128, 0.98, 300)}

settings = run.settings
(first, second), usual_epochs, batch_size, enough, time_limit = PLANS[settings.data]
settings.epochs = settings.epochs or usual_epochs
arrays = data.load(settings.data)
white = np.float32(arrays["train_images"].max())


def part(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The images of one part of the data, each as a row of numbers from 0 to 1, and their labels."""
    images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
    return images.reshape(len(images), -1) / white, labels.astype(np.int64)


(inputs, labels), (test_inputs, test_labels) = part("train"), part("test")

manual_seed(settings.seed)
model = Sequential(Linear(inputs.shape[1], first), ReLU(), Linear(first, second), ReLU(), Linear(second, 10))
train = Batches(inputs, labels, batch_size, shuffle=True, seed=settings.seed)
test = Batches(test_inputs, test_labels, 500)
optimizer = AdamW(model.parameters())
scheduler = OneCycleLR(optimizer, max_lr=5e-3, total_steps=settings.epochs * len(train))
trainer = Trainer(
    model, CrossEntropyLoss(), optimizer, scheduler=scheduler, metrics={"accuracy": accuracy}, callbacks=[ProgressBar()]
)
history = trainer.fit(train, settings.epochs, validation=test)
learning_seconds = run.seconds

likely = softmax(Tensor(trainer.predict(test_inputs))).data  # (N, 10)
answers = likely.argmax(axis=1)
right = answers == test_labels
confusion = confusion_matrix(answers, test_labels, 10)
print(f"Of {len(right):,} digits that it had not seen, it reads {right.sum():,} right: {right.mean():.2%}")

figure, (losses, errors, table) = plt.subplots(1, 3, figsize=(12.6, 4))
seen = range(1, settings.epochs + 1)
for prefix, name in (("", "training"), ("val_", "unseen digits")):
    losses.semilogy(seen, history[f"{prefix}loss"], label=name)
    errors.plot(seen, 100 * (1 - np.array(history[f"{prefix}accuracy"])), label=name)
losses.set(title="Loss", xlabel="epoch")
losses.yaxis.set_major_formatter("{x:g}")
errors.set(title="Read wrong, in %", xlabel="epoch", ylim=(0, 10))
losses.legend()
mistakes = np.where(np.eye(10), 0, confusion)
table.imshow(np.ma.masked_equal(mistakes, 0), cmap="Oranges", vmin=0, vmax=2 * mistakes.max())
for (label, answer), count in np.ndenumerate(confusion):
    shade = "0.6" if label == answer else "0.1"
    table.text(answer, label, count or "", ha="center", va="center", fontsize=8, color=shade)
table.set(title="What it is (row), what it reads", xticks=range(10), yticks=range(10))
run.save(figure, "figure.png")

chances = likely[np.arange(len(right)), test_labels]  # what it gave to the right answer
figure, panels = plt.subplots(3, 8, figsize=(10.4, 5))
for panel, i in zip(panels.flat, chances.argsort()[: panels.size], strict=True):
    panel.imshow(arrays["test_images"][i])
    panel.set_axis_off()
    said = f"a {test_labels[i]}" if right[i] else f"{answers[i]}, but it is a {test_labels[i]}"
    panel.set_title(said, color="0.5" if right[i] else "C4", fontsize=9, loc="center", pad=4)
figure.suptitle("The hardest of the unseen digits")
run.save(figure, "hardest.png")

run.record(accuracy=right.mean(), learning_seconds=learning_seconds, history=history, confusion=confusion)
run.goal(f"{enough:.0%} of the digits that it had not seen are read right ({right.mean():.2%})", right.mean() >= enough)
run.goal(f"learnt in under {time_limit} seconds ({learning_seconds:.1f})", learning_seconds < time_limit)
run.finish()
