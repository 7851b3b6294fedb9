"""``python benchmarks/shakespeare_gpt.py``: the character GPT of milestone 05, trained here and in PyTorch.

Both begin with the same weights, see the same batches in the same order, and use the same recipe, that of nanoGPT on a
laptop's processor: 4 blocks, 4 heads, 128 wide, context 64, batches of 12, 2,000 steps of AdamW (betas 0.9 and 0.99,
weight decay 0.1 on matrices alone), gradients clipped to norm 1, 100 steps of warm-up to a rate of 1e-3, and a cosine
down to 1e-4; float32, no dropout. Unlike nanoGPT's, layers have biases, as in GPT-2. The text is the Shakespeare that
comes with the course: its first nine tenths to learn from, the last one to be measured on. Here it is module 16's
trainer that trains, and all is as in the milestone, so that its loss is the milestone's.

Each side is a process of its own with the same number of threads. They take turns, 20 each: one trains, and the other
waits; so what else the machine does meanwhile falls on both. Loading, measuring and making batches are not timed.

Compared are the validation loss, over the whole last tenth, and the seconds of training. Not compared are PyTorch's
ways to be faster, ``torch.compile``, a fused optimizer or bfloat16; graphics cards; larger models, where both would
spend their time in the same matrix products; memory. Both round in their own ways, which may become larger differences
over many steps: what is claimed is that the losses end within 0.03.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tito.course import Course

TURNS, CLOSE = 20, 0.03
BATCH, CONTEXT, LAYERS, HEADS, WIDE = 12, 64, 4, 4, 128
RATE, LAST_RATE, BETAS, DECAY, LARGEST_NORM = 1e-3, 1e-4, (0.9, 0.99), 0.1, 1.0

Step = Callable[[Any, Any], None]
Loss = Callable[[Any, Any], float]


@click.command()
@click.option("--steps", default=2000, show_default=True, help="Steps of training, a multiple of 20.")
@click.option("--seed", default=0, show_default=True, help="Decides the first weights and the batches.")
@click.option("--threads", default=1, show_default=True, help="Threads of each side.")
def main(steps: int, seed: int, threads: int) -> None:
    """Train a character GPT here and in PyTorch; exit with 0 if their validation losses are close."""
    if steps < TURNS or steps % TURNS:
        raise click.BadParameter(f"{steps} steps cannot be shared out to {TURNS} turns")
    os.environ |= {name: str(threads) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    sides = {name: _begin(name, steps, seed, threads) for name in ("tinytorch", "pytorch")}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    console = Console(stderr=True)
    for number in track(range(TURNS), "Training", console=console, disable=not console.is_terminal):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            sides[name].send("train")
            found[name].append(sides[name].recv())
    for name, side in sides.items():
        side.send("end")
        found[name].append(side.recv())
    difference = found["tinytorch"][-1]["loss"] - found["pytorch"][-1]["loss"]
    path = Course.locate(Path(__file__).parent).root / "build" / "shakespeare_gpt.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(_report(found, steps, seed, threads), indent=2) + "\n", encoding="utf-8")
    _show(found, difference, f"{steps} steps, seed {seed}, {threads} threads each")
    click.echo(f"Wrote {path}")
    raise SystemExit(abs(difference) > CLOSE)


def _show(found: dict[str, list[dict[str, Any]]], difference: float, title: str) -> None:
    table = Table("", "validation loss", "s of training", "ms a step (median of turns)", title=title)
    for name, turns in found.items():
        seconds = sum(turn["seconds"] for turn in turns[:-1])
        table.add_row(name, f"{turns[-1]['loss']:.4f}", f"{seconds:.1f}", f"{1000 * _pace(turns):.1f}")
    Console().print(table)
    ratio = _pace(found["tinytorch"]) / _pace(found["pytorch"])
    click.echo(f"The losses differ by {difference:+.4f}; a step takes {ratio:.2f} times as long as in PyTorch.")


def _pace(turns: list[dict[str, Any]]) -> float:
    """The seconds of a step: the median of the turns, the first one left out if there are others."""
    paces = [turn["seconds"] / turn["steps"] for turn in turns[:-1]]
    return float(np.median(paces[1:] or paces))


def _report(found: dict[str, list[dict[str, Any]]], steps: int, seed: int, threads: int) -> dict[str, Any]:
    return {
        "steps": steps,
        "seed": seed,
        "threads": threads,
        "difference": found["tinytorch"][-1]["loss"] - found["pytorch"][-1]["loss"],
        "ratio": _pace(found["tinytorch"]) / _pace(found["pytorch"]),
        "sides": {
            name: {
                "validation_loss": turns[-1]["loss"],
                "seconds": sum(turn["seconds"] for turn in turns[:-1]),
                "turns": turns[:-1],
                "version": turns[-1]["version"],
            }
            for name, turns in found.items()
        },
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
    }


# ---- a side: its process, and what it sees


def _begin(name: str, steps: int, seed: int, threads: int) -> Connection:
    """Start the process of a side. Told to train, it takes its turn and tells the loss; told to end, the last one."""
    spawn = multiprocessing.get_context("spawn")
    ours, its = spawn.Pipe()
    spawn.Process(target=_side, args=(name, its, steps, seed, threads), daemon=True).start()
    return ours


def _side(name: str, calls: Connection, steps: int, seed: int, threads: int) -> None:
    from tinytorch.core.tensor import manual_seed
    from tinytorch.core.tinygpt import TinyGPT, TinyGPTConfig, training_windows, validation_windows

    train, unseen, vocab_size = _text()
    manual_seed(seed)
    model = TinyGPT(TinyGPTConfig(vocab_size, CONTEXT, num_layers=LAYERS, num_heads=HEADS, embed_dim=WIDE))
    step, loss, version = {"tinytorch": _tinytorch, "pytorch": _pytorch}[name](model, steps, threads)
    batches = training_windows(train, CONTEXT, BATCH, batches=steps // TURNS, seed=seed)
    some = validation_windows(unseen[: 10 * BATCH * CONTEXT + 1], CONTEXT)
    turn = 0
    while calls.recv() == "train":
        batches.set_epoch(turn)
        seen = list(batches)
        began = time.perf_counter()
        for inputs, ids in seen:
            step(inputs, ids)
        seconds = time.perf_counter() - began
        calls.send({"steps": len(seen), "seconds": seconds, "loss": _mean(loss, some)})
        turn += 1
    calls.send({"loss": _mean(loss, validation_windows(unseen, CONTEXT)), "version": version})


def _text() -> tuple[np.ndarray, np.ndarray, int]:
    """The ids to learn from, those to be measured on, and how many different ones there can be."""
    from tinytorch.core.tokenization import CharTokenizer
    from tito import data

    plays = data.text("shakespeare")
    tokenizer = CharTokenizer().fit(plays)
    ids = np.array(tokenizer.encode(plays))
    train, unseen = np.split(ids, [len(ids) * 9 // 10])
    return train, unseen, tokenizer.vocab_size


def _mean(loss: Loss, loader: Iterable[Any]) -> float:
    """The mean loss over all windows of ``loader``."""
    losses, sizes = zip(*[(loss(inputs, ids), len(ids)) for inputs, ids in loader], strict=True)
    return float(np.average(losses, weights=sizes))


# ---- here


def _tinytorch(model: Any, steps: int, _: int) -> tuple[Step, Loss, str]:
    import tinytorch
    from tinytorch.core.tinygpt import LanguageModelTrainer
    from tinytorch.core.training import evaluating

    trainer = LanguageModelTrainer(
        model, steps, lr=RATE, min_lr=LAST_RATE, warmup_steps=steps // 20, weight_decay=DECAY, betas=BETAS,
        max_grad_norm=LARGEST_NORM,
    )  # fmt: skip

    def step(inputs: Any, ids: Any) -> None:
        trainer.train_step([(inputs, ids)])

    def loss(inputs: Any, ids: Any) -> float:
        with evaluating(model):
            return trainer.loss(model(inputs), ids).item()

    return step, loss, f"tinytorch {tinytorch.__version__}, numpy {np.__version__}"


# ---- in PyTorch


def _pytorch(ours: Any, steps: int, threads: int) -> tuple[Step, Loss, str]:
    import torch
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(threads)
    model = _network(ours.vocab_size)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
    parameters = list(model.parameters())
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
    others = [parameter for parameter in parameters if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_share_of_rate, steps=steps))

    def loss_of(inputs: Any, ids: Any) -> torch.Tensor:
        logits = model(torch.from_numpy(inputs.data))
        return cross_entropy(logits.flatten(0, 1), torch.from_numpy(ids.data)[:, 1:].flatten())

    def step(inputs: Any, ids: Any) -> None:
        optimizer.zero_grad()
        loss_of(inputs, ids).backward()
        torch.nn.utils.clip_grad_norm_(parameters, LARGEST_NORM)
        optimizer.step()
        scheduler.step()

    @torch.no_grad()
    def loss(inputs: Any, ids: Any) -> float:
        return loss_of(inputs, ids).item()

    return step, loss, f"torch {torch.__version__}"


def _share_of_rate(done: int, steps: int) -> float:
    """What the rate is multiplied by after so many steps: evenly up to 1, then down along a cosine."""
    rising, lowest = steps // 20, LAST_RATE / RATE
    if done < rising:
        return (done + 1) / (rising + 1)
    descended = min(1, (done - rising) / (steps - rising))
    return lowest + (1 - lowest) * (1 + math.cos(math.pi * descended)) / 2


def _network(vocab_size: int) -> Any:
    """The same network in PyTorch, its parameters under the same names."""
    import torch
    from torch import nn
    from torch.nn.functional import gelu, linear, scaled_dot_product_attention

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.in_proj_weight = nn.Parameter(torch.empty(3 * WIDE, WIDE))
            self.in_proj_bias = nn.Parameter(torch.empty(3 * WIDE))
            self.out_proj = nn.Linear(WIDE, WIDE)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            parts = linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
            q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)  # (B, H, T, D)
            found = scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out_proj(found.transpose(1, 2).flatten(-2))

    class FeedForward(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear1, self.linear2 = nn.Linear(WIDE, 4 * WIDE), nn.Linear(4 * WIDE, WIDE)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear2(gelu(self.linear1(x), approximate="tanh"))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(WIDE), nn.LayerNorm(WIDE)
            self.attention, self.feed_forward = Attention(), FeedForward()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.attention(self.norm1(x))
            return x + self.feed_forward(self.norm2(x))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token_embedding = nn.Embedding(vocab_size, WIDE)
            self.position_embedding = nn.Embedding(CONTEXT, WIDE)
            self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
            self.norm = nn.LayerNorm(WIDE)
            self.head = nn.Linear(WIDE, vocab_size, bias=False)
            self.head.weight = self.token_embedding.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = self.token_embedding(ids) + self.position_embedding(torch.arange(ids.shape[1]))
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    return Network()


if __name__ == "__main__":
    main()
