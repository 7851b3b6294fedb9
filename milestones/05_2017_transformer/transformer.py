"""A transformer learns to write words backwards, or to write as Shakespeare did; --prompt lets the latter go on."""

import argparse
from collections.abc import Mapping
from string import ascii_lowercase
from typing import Any

from tito.errors import TitoError
from tito.milestones import at_least, begin

POINTS = 20  # how often it is measured on the way, and a checkpoint written

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--task", choices=["reverse", "shakespeare"], default="reverse", help="what it learns (reverse)")
parser.add_argument("--steps", type=at_least(POINTS), help="steps of the optimizer (reverse: 200, shakespeare: 2000)")
parser.add_argument("--seed", type=at_least(0), default=0, help="decides weights, order and what is drawn (0)")
parser.add_argument("--resume", action="store_true", help="go on with Shakespeare where a run was stopped")
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
from tinytorch.core.training import Batches, Callback, Checkpoint, Trainer, clock, evaluating
from tinytorch.core.transformers import Transformer
from tito import data

settings = run.settings
every = (settings.steps or {"reverse": 200, "shakespeare": 2000}[settings.task]) // POINTS
settings.steps = every * POINTS
order = manual_seed(settings.seed)


class Report(Callback):
    """Says at each point how far it is and what time is left; and refuses the checkpoint of another run."""

    saved = ("run",)
    run = {"steps": settings.steps, "seed": settings.seed}  # noqa: RUF012

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["run"] != self.run:
            raise ValueError("it is of a run with --steps {steps} --seed {seed}".format(**state["run"]))

    def on_fit_start(self, trainer: Trainer) -> None:
        self.began, self.before = run.seconds, trainer.epoch

    def on_epoch_end(self, trainer: Trainer) -> None:
        each = (run.seconds - self.began) / (trainer.epoch - self.before)
        left = clock(each * (trainer.epochs - trainer.epoch))
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


def draw_maps(maps: np.ndarray, text: str, inches: float, title: str) -> plt.Figure:
    """A picture for each map, with the characters of ``text`` along its edges."""
    (blocks, heads), places = maps.shape[:2], range(len(text))
    figure, panels = plt.subplots(blocks, heads, figsize=(inches * heads, inches * blocks), squeeze=False)
    for (block, head), panel in np.ndenumerate(panels):
        panel.imshow(np.sqrt(maps[block, head]), cmap="Blues", vmin=0, vmax=1)
        panel.set_title(f"block {block + 1}, head {head + 1}", fontsize=9, pad=4)
        for set_ticks in (panel.set_xticks, panel.set_yticks):
            set_ticks(places, text, fontsize=min(9, 50 * inches / len(text)), family="monospace")
        panel.tick_params(length=0, pad=1)
    figure.suptitle(title)
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
    trainer = Trainer(
        model, loss_behind_bar, optimizer, scheduler=scheduler, metrics={"exact": exact}, callbacks=[Report()]
    )
    train = Batches(*words(32 * every), 32, shuffle=True, seed=settings.seed)
    history = trainer.fit(train, POINTS, validation=Batches(*words(500), 500))
    learning_seconds = run.seconds

    asked, answers = words(2000)
    written = np.array(generate(model, asked[:, : LENGTH + 1], LENGTH, sampling=likeliest))
    right = (written[:, -LENGTH:] == answers).all(axis=1).mean()
    shown = generate(model, letters.encode("transformers|"), LENGTH, sampling=likeliest)[0].tolist()
    print(f"\n{letters.decode(shown)}\nOf {len(answers)} words that it had not seen, {right:.2%} are reversed exactly.")

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
    run.save(figure, "reverse.png")
    text = letters.decode(shown[:-1])
    title = "Where it looks (column) as it reads each letter (row)"
    run.save(draw_maps(attention_maps(model, shown[:-1]), text, 4.6, title), "reverse_attention.png")

    run.record(exact=right, learning_seconds=learning_seconds, history=history)
    run.goal(f"at least 99.5 % of unseen words are reversed exactly ({right:.2%})", right >= 0.995)
    run.goal(f"learned in under 2 minutes ({learning_seconds:.1f} s)", learning_seconds < 120)


# ---- Shakespeare, a character at a time, with the sizes and the recipe of nanoGPT on a laptop

CONTEXT, BATCH = 64, 12
PYTORCH = 1.7  # the loss of the same network, trained in PyTorch: benchmarks/shakespeare_gpt.py
LINE = "Friends, Romans, countrymen, lend me your ears;"  # it stands in the part that is not learned from
checkpoint = run.folder / "shakespeare.npz"


def shakespeare() -> None:
    plays = data.text("shakespeare")
    tokenizer = CharTokenizer().fit(plays)
    ids = np.array(tokenizer.encode(plays))
    train, unseen = np.split(ids, [len(ids) * 9 // 10])
    model = TinyGPT(TinyGPTConfig(tokenizer.vocab_size, CONTEXT, num_layers=4, num_heads=4, embed_dim=128))
    writer = TextGenerator(model, tokenizer)
    samples = SampleWriter(writer, "ROMEO:\n", 200, every_epochs=5)
    trainer = LanguageModelTrainer(
        model, settings.steps, lr=1e-3, warmup_steps=settings.steps // 20, weight_decay=0.1, betas=(0.9, 0.99),
        callbacks=[samples, Report(), Checkpoint(checkpoint)],
    )  # fmt: skip
    if settings.resume:
        resume(trainer)
    windows = training_windows(train, CONTEXT, BATCH, batches=every, seed=settings.seed)
    history = trainer.fit(windows, POINTS, validation=validation_windows(unseen[: 20 * BATCH * CONTEXT + 1], CONTEXT))
    learning_seconds = run.seconds
    loss = trainer.evaluate(validation_windows(unseen, CONTEXT))["loss"]
    print(f"\nOn all of the plays that it has not seen: loss {loss:.4f}, perplexity {np.exp(loss):.2f}")


def resume(trainer: Trainer) -> None:
    try:
        trainer.resume(checkpoint)
    except FileNotFoundError:
        raise nothing_learned() from None
    except ValueError as error:
        raise TitoError(str(error), next_step="give the same --steps and --seed, or leave out --resume") from None


def nothing_learned() -> TitoError:
    return TitoError(
        "nothing has learned Shakespeare here", place=str(checkpoint),
        next_step="tito milestone run 05 --task shakespeare, which takes some minutes",
    )  # fmt: skip


def go_on(prompt: str) -> None:
    """Continue ``prompt`` with the network of the last checkpoint."""


if settings.prompt is not None:
    go_on(settings.prompt)
else:
    {"reverse": reverse, "shakespeare": shakespeare}[settings.task]()
    run.finish()
