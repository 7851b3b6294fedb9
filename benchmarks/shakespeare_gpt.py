"""``python benchmarks/shakespeare_gpt.py``: the character GPT of milestone 05, trained here and in PyTorch.

Both begin with the same weights, see the same batches in the same order, and use the same recipe, that of nanoGPT on a
laptop's processor: 4 blocks, 4 heads, 128 wide, context 64, batches of 12, 2,000 steps of AdamW (betas 0.9 and 0.99,
weight decay 0.1 on matrices alone), gradients clipped to norm 1, 100 steps of warm-up to a rate of 1e-3, and a cosine
down to 1e-4; float32, no dropout. Unlike nanoGPT's, layers have biases, as in GPT-2. The text is the Shakespeare that
comes with the course: its first nine tenths to learn from, the last one to be measured on.

Each side is a process of its own with the same number of threads. They take turns: one trains for a while, and the
other waits; so what else the machine does meanwhile falls on both. Loading, measuring and making batches are not timed.

Compared are the validation loss, over the whole last tenth, and the seconds of training. Not compared are PyTorch's
ways to be faster, ``torch.compile``, a fused optimizer or bfloat16; graphics cards; larger models, where both would
spend their time in the same matrix products; memory. Both round in their own ways, so after some hundred steps they are
two different runs: what is claimed is that they end within 0.03, and not which of them is the better.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tito.course import Course

CONTEXT, BATCH, EVALUATED = 64, 12, 20
RATE, LAST_RATE, WARM_UP, BETAS, DECAY, LARGEST_NORM = 1e-3, 1e-4, 100, (0.9, 0.99), 0.1, 1.0
SIZES = {"embed_dim": 128, "num_heads": 4, "num_layers": 4, "hidden_dim": 512, "max_seq_length": CONTEXT}
CLOSE = 0.03

Step = Callable[[np.ndarray], None]
Loss = Callable[[np.ndarray], float]


@click.command()
@click.option("--steps", default=2000, show_default=True, help="Steps of training.")
@click.option("--seed", default=0, show_default=True, help="Decides the first weights and the batches.")
@click.option("--threads", default=1, show_default=True, help="Threads of each side.")
@click.option("--turn", default=100, show_default=True, help="Steps that a side trains before the other's turn.")
def main(steps: int, seed: int, threads: int, turn: int) -> None:
    """Train a character GPT here and in PyTorch; exit with 0 if their validation losses are close."""
    turns = [min(turn, steps - done) for done in range(0, steps, turn)]
    os.environ |= {name: str(threads) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    sides = {name: _begin(name, steps, seed, threads) for name in ("tinytorch", "pytorch")}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    console = Console(stderr=True)
    for number, length in enumerate(track(turns, "Training", console=console, disable=not console.is_terminal)):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            sides[name].send(length)
            found[name].append(sides[name].recv())
    for name, side in sides.items():
        side.send(None)
        found[name].append(side.recv())
    difference = found["tinytorch"][-1]["loss"] - found["pytorch"][-1]["loss"]
    path = Course.locate(Path(__file__).parent).root / "build" / "shakespeare_gpt.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(_report(found, turns, seed, threads), indent=2) + "\n", encoding="utf-8")
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


def _report(found: dict[str, list[dict[str, Any]]], turns: list[int], seed: int, threads: int) -> dict[str, Any]:
    return {
        "steps": sum(turns),
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
    """Start the process of a side; through what is returned it is told how many steps to take, and tells the loss."""
    spawn = multiprocessing.get_context("spawn")
    ours, its = spawn.Pipe()
    spawn.Process(target=_side, args=(name, its, steps, seed, threads), daemon=True).start()
    return ours


def _side(name: str, calls: Connection, steps: int, seed: int, threads: int) -> None:
    train, held_out, vocab_size = _text()
    weights = _first_weights(vocab_size, seed)
    make = {"tinytorch": _tinytorch, "pytorch": _pytorch}[name]
    step, loss, version = make(weights, vocab_size, steps, threads)
    batches = _batches(train, seed)
    few = np.concatenate([batch for _, batch in zip(range(EVALUATED), _batches(held_out, seed + 1), strict=False)])
    while (length := calls.recv()) is not None:
        windows = [next(batches) for _ in range(length)]
        began = time.perf_counter()
        for window in windows:
            step(window)
        seconds = time.perf_counter() - began
        calls.send({"steps": length, "seconds": seconds, "loss": _mean_loss(loss, few)})
    starts = np.arange(0, len(held_out) - CONTEXT, CONTEXT)
    calls.send({"loss": _mean_loss(loss, held_out[starts[:, None] + np.arange(CONTEXT + 1)]), "version": version})


def _text() -> tuple[np.ndarray, np.ndarray, int]:
    """The ids to learn from, those to be measured on, and how many different ones there can be."""
    from tinytorch.core.tokenization import CharTokenizer
    from tito import data

    plays = data.text("shakespeare")
    tokenizer = CharTokenizer().fit(plays)
    ids = np.array(tokenizer.encode(plays))
    cut = len(ids) * 9 // 10
    return ids[:cut], ids[cut:], tokenizer.vocab_size


def _batches(ids: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Windows (BATCH, CONTEXT + 1) from anywhere in ``ids``, without end."""
    dice = np.random.default_rng(seed)
    while True:
        yield ids[dice.integers(len(ids) - CONTEXT, size=(BATCH, 1)) + np.arange(CONTEXT + 1)]


def _first_weights(vocab_size: int, seed: int) -> dict[str, np.ndarray]:
    from tinytorch.core.tensor import manual_seed
    from tinytorch.core.transformers import Transformer

    manual_seed(seed)
    return Transformer(vocab_size, **SIZES, tie_weights=True).state_dict()


def _mean_loss(loss: Loss, windows: np.ndarray) -> float:
    """The mean loss over ``windows``, in pieces that fit into the memory."""
    pieces = np.array_split(windows, math.ceil(len(windows) / 64))
    return float(np.average([loss(piece) for piece in pieces], weights=[len(piece) for piece in pieces]))


# ---- here


def _tinytorch(weights: dict[str, np.ndarray], vocab_size: int, steps: int, _: int) -> tuple[Step, Loss, str]:
    import tinytorch
    from tinytorch.core.losses import cross_entropy
    from tinytorch.core.optimizers import AdamW, CosineWarmupLR, clip_grad_norm
    from tinytorch.core.training import evaluating
    from tinytorch.core.transformers import Transformer

    model = Transformer(vocab_size, **SIZES, tie_weights=True)
    model.load_state_dict(weights)
    parameters = list(model.parameters())
    optimizer = AdamW(_groups(parameters), lr=RATE, betas=BETAS)
    scheduler = CosineWarmupLR(optimizer, WARM_UP, max(steps, WARM_UP + 1), LAST_RATE)

    def step(window: np.ndarray) -> None:
        optimizer.zero_grad()
        cross_entropy(model(window[:, :-1]), window[:, 1:]).backward()
        clip_grad_norm(parameters, LARGEST_NORM)
        optimizer.step()
        scheduler.step()

    def loss(window: np.ndarray) -> float:
        with evaluating(model):
            return cross_entropy(model(window[:, :-1]), window[:, 1:]).item()

    return step, loss, f"tinytorch {tinytorch.__version__}, numpy {np.__version__}"


def _groups(parameters: list[Any]) -> list[dict[str, Any]]:
    """Matrices are pulled towards 0; biases and the weights of norms are not."""
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
    others = [parameter for parameter in parameters if parameter.ndim < 2]
    return [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]


# ---- in PyTorch


def _pytorch(weights: dict[str, np.ndarray], vocab_size: int, steps: int, threads: int) -> tuple[Step, Loss, str]:
    import torch
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(threads)
    model = _network(vocab_size)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(_groups(parameters), lr=RATE, betas=BETAS)
    lowest, descent = LAST_RATE / RATE, max(steps, WARM_UP + 1) - WARM_UP

    def share(done: int) -> float:
        if done < WARM_UP:
            return (done + 1) / (WARM_UP + 1)
        return lowest + (1 - lowest) * (1 + math.cos(math.pi * min(1, (done - WARM_UP) / descent))) / 2

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, share)

    def loss_of(window: np.ndarray) -> torch.Tensor:
        ids = torch.from_numpy(window)
        return cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())

    def step(window: np.ndarray) -> None:
        optimizer.zero_grad()
        loss_of(window).backward()
        torch.nn.utils.clip_grad_norm_(parameters, LARGEST_NORM)
        optimizer.step()
        scheduler.step()

    @torch.no_grad()
    def loss(window: np.ndarray) -> float:
        return loss_of(window).item()

    return step, loss, f"torch {torch.__version__}"


def _network(vocab_size: int) -> Any:
    """The same network in PyTorch, its parameters under the same names."""
    import torch
    from torch import nn
    from torch.nn.functional import gelu, linear, scaled_dot_product_attention

    wide, heads, hidden = SIZES["embed_dim"], SIZES["num_heads"], SIZES["hidden_dim"]

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.in_proj_weight = nn.Parameter(torch.empty(3 * wide, wide))
            self.in_proj_bias = nn.Parameter(torch.empty(3 * wide))
            self.out_proj = nn.Linear(wide, wide)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            parts = linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
            q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts)  # (B, H, T, D)
            found = scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out_proj(found.transpose(1, 2).flatten(-2))

    class FeedForward(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear1, self.linear2 = nn.Linear(wide, hidden), nn.Linear(hidden, wide)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear2(gelu(self.linear1(x), approximate="tanh"))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(wide), nn.LayerNorm(wide)
            self.attention, self.feed_forward = Attention(), FeedForward()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.attention(self.norm1(x))
            return x + self.feed_forward(self.norm2(x))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token_embedding = nn.Embedding(vocab_size, wide)
            self.position_embedding = nn.Embedding(CONTEXT, wide)
            self.blocks = nn.ModuleList(Block() for _ in range(SIZES["num_layers"]))
            self.norm = nn.LayerNorm(wide)
            self.head = nn.Linear(wide, vocab_size, bias=False)
            self.head.weight = self.token_embedding.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = self.token_embedding(ids) + self.position_embedding(torch.arange(ids.shape[1]))
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    return Network()


if __name__ == "__main__":
    main()
