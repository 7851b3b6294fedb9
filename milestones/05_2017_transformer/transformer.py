"""A transformer learns to write words backwards, or to write as Shakespeare did; --prompt lets the latter go on."""

import argparse
from string import ascii_lowercase

from tito.errors import TitoError
from tito.milestones import at_least, begin

POINTS = 20  # how often it is measured on the way, and a checkpoint written

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--task", choices=["reverse", "shakespeare"], default="reverse", help="what it learns (reverse)")
parser.add_argument("--steps", type=at_least(POINTS), help="steps of the optimizer (reverse: 200, shakespeare: 2000)")
parser.add_argument("--seed", type=at_least(0), default=0, help="decides weights, order and what is drawn (0)")
parser.add_argument("--resume", action="store_true", help="go on learning Shakespeare where a run was stopped")
parser.add_argument("--prompt", help="learn nothing: let what has learned Shakespeare go on from this text")
run = begin(__file__, parser)

import matplotlib.pyplot as plt
import numpy as np

from tinytorch.core.attention import causal_mask
from tinytorch.core.generation import Sampling, generate
from tinytorch.core.losses import cross_entropy
from tinytorch.core.optimizers import AdamW, CosineWarmupLR
from tinytorch.core.tensor import Tensor, manual_seed
from tinytorch.core.tinygpt import (
    LanguageModelTrainer,
    SampleWriter,
    TextGenerator,
    TinyGPT,
    TinyGPTConfig,
    training_windows,
    validation_windows,
)
from tinytorch.core.tokenization import CharTokenizer
from tinytorch.core.training import Batches, Checkpoint, Trainer, clock, evaluating
from tinytorch.core.transformers import Transformer
from tito import data
from tito.milestones.training import Stopwatch, begin_or_resume

settings = run.settings
settings.task = "shakespeare" if settings.resume else settings.task
every = (settings.steps or {"reverse": 200, "shakespeare": 2000}[settings.task]) // POINTS
settings.steps = every * POINTS
order = manual_seed(settings.seed)


class Report(Stopwatch):
    """Says how far training is and what time is left."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        super().on_epoch_end(trainer)
        left = clock(self.seconds / trainer.epoch * (trainer.epochs - trainer.epoch))
        seen, new = (trainer.history[name][-1] for name in ("loss", "val_loss"))
        print(f"step {trainer.step:4}  loss {seen:.3f}, on what it has not seen {new:.3f}  {left} left", flush=True)


def attention_maps(model: Transformer, ids: list[int]) -> np.ndarray:
    """What each head of each block looks at while the model reads ``ids``: (L, H, T, T), a row for who looks."""
    mask, maps = causal_mask(len(ids)), []
    with evaluating(model):
        stream = model.embed(np.array(ids))
        for block in model.blocks:
            _, weights = block.attention(block.norm1(stream), mask=mask, return_weights=True)
            maps.append(weights.data)
            stream = block(stream, mask)
    return np.stack(maps)


def draw_maps(maps: np.ndarray, text: str, inches: float) -> plt.Figure:
    """A picture for each map, with the characters of ``text`` along the edges."""
    (blocks, heads), places = maps.shape[:2], range(len(text))
    figure, panels = plt.subplots(blocks, heads, figsize=(inches * heads, inches * blocks + 0.6), squeeze=False)
    for (block, head), panel in np.ndenumerate(panels):
        panel.imshow(np.sqrt(maps[block, head]), cmap="Blues", vmin=0, vmax=1)
        panel.set_title(f"block {block + 1}, head {head + 1}", fontsize=9, pad=4)
        panel.set(xticks=[], yticks=[])
        panel.tick_params(length=0, pad=1)
    for set_ticks in [panel.set_xticks for panel in panels[-1]] + [panel.set_yticks for panel in panels[:, 0]]:
        set_ticks(places, text, fontsize=min(9, 60 * inches / len(text)), family="monospace")
    figure.suptitle("Where it looks (column) when it has read each character (row)")
    return figure


# ---- words backwards: twelve letters, a bar, the same letters the other way round

LENGTH = 12
letters = CharTokenizer("|" + ascii_lowercase)
likeliest = Sampling(temperature=0)


def words(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random words, each with a bar and its reverse but for the last letter, (count, 24); and the reverses."""
    first, bar = letters.encode("a|")
    forwards = order.integers(first, first + 26, size=(count, LENGTH))
    backwards = forwards[:, ::-1]
    return np.hstack([forwards, np.full((count, 1), bar), backwards[:, :-1]]), backwards


def loss_behind_bar(logits: Tensor, backwards: Tensor) -> Tensor:
    """The word itself is random, so only what follows the bar can be learned."""
    return cross_entropy(logits[:, -LENGTH:], backwards)


def exact(logits: Tensor, backwards: Tensor) -> float:
    """The share of words with every letter right."""
    return float((logits.data[:, -LENGTH:].argmax(axis=-1) == backwards.data).all(axis=1).mean())


def reverse() -> None:
    model = Transformer(letters.vocab_size, 64, 2, 1, 256, max_seq_length=2 * LENGTH, tie_weights=True)
    optimizer = AdamW(model.parameters(), lr=3e-3)
    scheduler = CosineWarmupLR(optimizer, settings.steps // 10, settings.steps)
    report = Report()
    trainer = Trainer(
        model, loss_behind_bar, optimizer, scheduler=scheduler, metrics={"exact": exact}, callbacks=[report]
    )
    train = Batches(*words(32 * every), 32, shuffle=True, seed=settings.seed)
    history = trainer.fit(train, POINTS, validation=Batches(*words(200), 200))

    asked, answers = words(1000)
    written = np.array(generate(model, asked[:, : LENGTH + 1], LENGTH, sampling=likeliest))
    right = (written[:, -LENGTH:] == answers).all(axis=1).mean()
    shown = generate(model, letters.encode("transformers|"), LENGTH, sampling=likeliest)[0].tolist()
    print(f"\n{letters.decode(shown)}")
    print(f"Of {len(answers):,} words that it had not seen, {right:.2%} are reversed exactly.")

    figure, (losses, shares) = plt.subplots(1, 2, figsize=(9.6, 3.8))
    steps = np.arange(1, POINTS + 1) * every
    for prefix, name in (("", "training"), ("val_", "words that it has not seen")):
        losses.plot(steps, history[f"{prefix}loss"], label=name)
        shares.plot(steps, 100 * np.array(history[f"{prefix}exact"]), label=name)
    losses.axhline(np.log(26), color="0.6", linestyle="--", linewidth=1)
    losses.text(settings.steps, np.log(26), "any letter: ln 26", ha="right", va="bottom", fontsize=9)
    losses.set(title="Loss", xlabel="step", ylim=0)
    shares.set(title="Words reversed exactly, in %", xlabel="step", ylim=(0, 102))
    shares.legend()
    run.save(figure, "reverse_learning.png")
    text = letters.decode(shown[:-1])
    run.save(draw_maps(attention_maps(model, shown[:-1]), text, 4.6), "reverse_attention.png")

    run.record(exact=right, learning_seconds=report.seconds, history=history)
    run.goal(f"at least 99.5 % of unseen words are reversed exactly ({right:.2%})", right >= 0.995)
    run.goal(f"learned in under 2 minutes ({report.seconds:.1f} s)", report.seconds < 120)


# ---- Shakespeare, a character at a time, with nanoGPT's sizes and recipe for a machine without graphics card

CONTEXT, BATCH = 64, 12
PYTORCH = 1.803  # the loss of the same network trained in PyTorch, seed 0: benchmarks/shakespeare_gpt.py
BEGINNING, drawing = "ROMEO:\n", Sampling(temperature=0.5, seed=settings.seed)
LINE = "countrymen, lend me your ears;"  # from a play that is not learned from
checkpoint = run.folder / f"shakespeare_{settings.steps}_steps_seed_{settings.seed}.npz"
samples = checkpoint.with_suffix(".txt")
plays = data.text("shakespeare")
characters = CharTokenizer().fit(plays)


def shakespeare() -> None:
    train, unseen = np.split(np.array(characters.encode(plays)), [len(plays) * 9 // 10])
    model = TinyGPT(TinyGPTConfig(characters.vocab_size, CONTEXT, num_layers=4, num_heads=4, embed_dim=128))
    writer = TextGenerator(model, characters)
    writes = SampleWriter(writer, BEGINNING, 120, drawing, every_epochs=POINTS // 4, show=show)
    report = Report()
    trainer = LanguageModelTrainer(
        model, settings.steps, lr=1e-3, min_lr=1e-4, warmup_steps=settings.steps // 20, weight_decay=0.1,
        betas=(0.9, 0.99), max_grad_norm=1.0, callbacks=[report, writes, Checkpoint(checkpoint)],
    )  # fmt: skip
    if begin_or_resume(trainer, checkpoint, samples, resume=settings.resume):
        print(f"Going on after step {trainer.step}, {report.seconds:,.0f} s into training.")
    size = sum(parameter.size for parameter in model.parameters())
    print(f"{size:,} parameters. Every {every} steps are kept: after a stop, add --resume.\n")
    batches = training_windows(train, CONTEXT, BATCH, batches=every, seed=settings.seed)
    history = trainer.fit(batches, POINTS, validation=validation_windows(unseen[: 10 * BATCH * CONTEXT + 1], CONTEXT))
    loss = trainer.evaluate(validation_windows(unseen, CONTEXT))["loss"]
    show(f"--- at the end\n{BEGINNING}{writer.generate(BEGINNING, 500, sampling=drawing)}")

    figure, axes = plt.subplots(figsize=(7.2, 4.2))
    steps = np.arange(1, POINTS + 1) * every
    axes.plot(steps, history["loss"], label="training")
    axes.plot(steps, history["val_loss"], label="plays that it has not seen")
    for name, level in guesses(train, unseen).items():
        axes.axhline(level, color="0.6", linestyle="--", linewidth=1)
        axes.text(settings.steps, level, name, ha="right", va="bottom", fontsize=9)
    axes.set(title="Loss for each character", xlabel="step")
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.9))
    run.save(figure, "shakespeare_learning.png")
    maps = attention_maps(model, characters.encode(LINE))
    run.save(draw_maps(maps, LINE, 3.2), "shakespeare_attention.png")

    run.record(loss=loss, perplexity=np.exp(loss), learning_seconds=report.seconds, history=history)
    run.goal(f"loss on unseen plays within 0.03 of PyTorch's {PYTORCH} ({loss:.4f})", loss <= PYTORCH + 0.03)


def show(text: str) -> None:
    """Print a sample, and keep it in a file."""
    print(text, end="\n\n", flush=True)
    with samples.open("a", encoding="utf-8") as file:
        file.write(text + "\n\n")


def guesses(train: np.ndarray, unseen: np.ndarray) -> dict[str, float]:
    """The loss on ``unseen`` of who knows nothing, how frequent characters are, or how frequent pairs are."""
    pairs = np.full((characters.vocab_size,) * 2, 0.01)  # a little for what never occurs
    np.add.at(pairs, (train[:-1], train[1:]), 1)
    likely = {"frequencies of characters": pairs.sum(axis=0)[unseen[1:]] / pairs.sum()}
    likely["frequencies of pairs"] = pairs[unseen[:-1], unseen[1:]] / pairs.sum(axis=1)[unseen[:-1]]
    losses = {name: float(-np.log(chances).mean()) for name, chances in likely.items()}
    return {"any character": np.log(characters.vocab_size), **losses}


def go_on(prompt: str) -> None:
    """Write what follows ``prompt``, as drawn from the network that was trained last."""
    found = max(run.folder.glob("shakespeare_*.npz"), key=lambda path: path.stat().st_mtime, default=None)
    if found is None:
        told, command = "nothing has learned Shakespeare here yet", "tito milestone run 05 --task shakespeare"
        raise TitoError(told, place=str(run.folder), next_step=f"{command}, which takes some minutes")
    try:
        writer = TextGenerator(TinyGPT.load(found), characters)
        fragments = writer.stream(prompt, 500, sampling=drawing)
    except ValueError as error:
        raise TitoError(str(error)) from None
    print(prompt, end="", flush=True)
    for fragment in fragments:
        print(fragment, end="", flush=True)
    print()


if settings.prompt is not None:
    go_on(settings.prompt)
else:
    {"reverse": reverse, "shakespeare": shakespeare}[settings.task]()
    run.finish()
