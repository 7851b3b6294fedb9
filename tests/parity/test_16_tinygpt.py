"""Module 16, tinygpt: logits, loss, the gradient of every parameter, and training itself equal PyTorch's."""

import numpy as np
import pytest
import torch

from tinytorch.core.tensor import Tensor
from tinytorch.core.tinygpt import LanguageModelLoss, LanguageModelTrainer, TinyGPT, TinyGPTConfig
from tinytorch.core.transformers import from_gpt2

LARGEST_ERROR = {np.float32: 1e-4, np.float64: 1e-8}
KINDS = {np.float32: torch.float32, np.float64: torch.float64}
CONFIG = TinyGPTConfig(vocab_size=65, max_seq_length=24, num_layers=4, num_heads=4, embed_dim=32)
PAD = 0


class Theirs(torch.nn.Module):
    """The network of a config out of PyTorch's own encoder layers, its head tied to its table."""

    def __init__(self, config):
        super().__init__()
        self.token_embedding = torch.nn.Embedding(config.vocab_size, config.embed_dim)
        self.position_embedding = torch.nn.Embedding(config.max_seq_length, config.embed_dim)
        self.blocks = torch.nn.ModuleList(
            torch.nn.TransformerEncoderLayer(
                config.embed_dim,
                config.num_heads,
                config.feed_forward_dim,
                dropout=0.0,
                activation=lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.num_layers)
        )
        self.norm = torch.nn.LayerNorm(config.embed_dim)
        self.head = torch.nn.Linear(config.embed_dim, config.vocab_size, bias=False)
        self.head.weight = self.token_embedding.weight

    def forward(self, ids):
        length = ids.shape[1]
        x = self.token_embedding(ids) + self.position_embedding(torch.arange(length))
        for block in self.blocks:
            x = block(x, src_mask=torch.ones(length, length, dtype=torch.bool).triu(1))
        return self.head(self.norm(x))


def our_name(name):
    return name.replace("self_attn.", "attention.").replace("linear", "feed_forward.linear")


def models(dtype):
    """The same network twice, with weights large enough that every part matters."""
    torch.manual_seed(0)
    theirs = Theirs(CONFIG).to(KINDS[dtype])
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(0.1 if parameter.shape[0] == CONFIG.vocab_size else 1).add_(
                0.05 * torch.randn_like(parameter)
            )
    ours = TinyGPT(CONFIG)
    for parameter in ours.parameters():
        parameter.data = parameter.data.astype(dtype)
    ours.load_state_dict({our_name(name): tensor.numpy() for name, tensor in theirs.state_dict().items()})
    return ours, theirs


def texts(count, seed):
    """Ids (count, 25), the last third of them with padding."""
    numbers = np.random.default_rng(seed)
    ids = numbers.integers(1, CONFIG.vocab_size, size=(count, CONFIG.max_seq_length + 1))
    for row in ids[2 * count // 3 :]:
        row[numbers.integers(2, 20) :] = PAD
    return ids


def their_loss(logits, ids):
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.from_numpy(ids[:, 1:].ravel()), ignore_index=PAD
    )


def relative_error(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


@pytest.mark.parametrize("dtype", KINDS)
def test_logits_loss_and_every_parameters_gradient(dtype):
    ours, theirs = models(dtype)
    ids = texts(6, seed=1)
    logits, expected = ours(ids[:, :-1]), theirs(torch.from_numpy(ids[:, :-1]))
    np.testing.assert_allclose(logits.data, expected.detach().numpy(), atol=LARGEST_ERROR[dtype])
    loss, right = LanguageModelLoss(PAD)(logits, ids), their_loss(expected, ids)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(right.item(), rel=LARGEST_ERROR[dtype])
    loss.backward()
    right.backward()
    slopes = {our_name(name): parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    mine = dict(ours.named_parameters())
    assert mine.keys() == slopes.keys() and len(mine) == 12 * CONFIG.num_layers + 4
    for name, parameter in mine.items():
        assert parameter.grad.dtype == dtype
        error = relative_error(parameter.grad.data, slopes[name])
        assert error < LARGEST_ERROR[dtype], f"{name}: {error}"


@pytest.mark.parametrize("dtype", KINDS)
def test_twenty_steps_of_training(dtype):
    """AdamW with decay for matrices only, clipping, warm-up and cosine: the losses of both are the same."""
    ours, theirs = models(dtype)
    steps, top, low, warmup = 20, 5e-3, 5e-4, 4
    batches = [texts(6, seed) for seed in range(steps)]
    trainer = LanguageModelTrainer(ours, steps, lr=top, min_lr=low, warmup_steps=warmup, max_grad_norm=0.5, pad_id=PAD)
    matrices = [p for p in theirs.parameters() if p.ndim > 1]
    others = [p for p in theirs.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=top, betas=(0.9, 0.99)
    )
    wanted, found = [], []
    for step, ids in enumerate(batches):
        fraction = (step - warmup) / (steps - warmup)
        rate = (
            top * (step + 1) / (warmup + 1) if step < warmup else low + (top - low) * (1 + np.cos(np.pi * fraction)) / 2
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = their_loss(theirs(torch.from_numpy(ids[:, :-1])), ids)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        optimizer.step()
        wanted.append(loss.item())
        found += trainer.fit([(Tensor(ids[:, :-1]), Tensor(ids))], epochs=step + 1)["loss"][-1:]
    tolerance = {np.float32: 1e-3, np.float64: 1e-9}[dtype]
    np.testing.assert_allclose(found, wanted, rtol=tolerance)
    for name, parameter in theirs.named_parameters():
        error = relative_error(dict(ours.named_parameters())[our_name(name)].data, parameter.detach().numpy())
        assert error < 10 * tolerance, f"{name}: {error}"
    assert found[-1] < found[0]


def test_gpt2s_names_load_into_a_tinygpt():
    ours, theirs = models(np.float32)
    state = {}
    for name, tensor in theirs.state_dict().items():
        for part, gpt2 in (
            ("token_embedding.", "wte."),
            ("position_embedding.", "wpe."),
            ("blocks.", "h."),
            ("norm1.", "ln_1."),
            ("norm2.", "ln_2."),
            ("self_attn.in_proj_", "attn.c_attn."),
            ("self_attn.out_proj.", "attn.c_proj."),
            ("linear1.", "mlp.c_fc."),
            ("linear2.", "mlp.c_proj."),
            ("head.", "lm_head."),
        ):
            name = name.replace(part, gpt2)
        name = f"ln_f.{name.removeprefix('norm.')}" if name.startswith("norm.") else name
        state[name] = tensor.numpy().T if ".c_" in name else tensor.numpy()  # the published layout is (in, out)
    other = TinyGPT(CONFIG)
    other.load_state_dict(from_gpt2(state))
    ids = np.random.default_rng(3).integers(0, 65, size=(2, 24))
    np.testing.assert_allclose(other(ids).data, theirs(torch.from_numpy(ids)).detach().numpy(), atol=1e-4)
    np.testing.assert_array_equal(other(ids).data, ours(ids).data)
