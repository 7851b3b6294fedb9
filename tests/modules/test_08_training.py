"""What ``tinytorch.core.training`` must do, whoever wrote it: the course's solution or a student's export."""

from __future__ import annotations

import io
import json
import math
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinytorch.core.activations import ReLU
from tinytorch.core.autograd import is_grad_enabled
from tinytorch.core.layers import Dropout, Linear, Module, Parameter, Sequential
from tinytorch.core.losses import cross_entropy, mse_loss
from tinytorch.core.optimizers import SGD, Adam, AdamW, CosineWarmupLR, StepLR
from tinytorch.core.tensor import Tensor, default_generator, manual_seed
from tinytorch.core.training import (
    Average,
    Batches,
    Callback,
    Checkpoint,
    EarlyStopping,
    ProgressBar,
    Trainer,
    accumulate_gradients,
    accuracy,
    confusion_matrix,
    evaluating,
    load_checkpoint,
    precision_recall_f1,
    read_checkpoint,
    save_checkpoint,
    top_k_accuracy,
    write_checkpoint,
)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


class Mean(Module):
    """A module with a buffer that training changes: the running mean of its inputs."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", np.zeros(features))
        self.mean: np.ndarray

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.data.mean(axis=0)
        return x - self.mean


def small_model(dropout: float = 0.3) -> Sequential:
    return Sequential(Mean(3), Linear(3, 8), ReLU(), Dropout(dropout), Linear(8, 2))


def small_data(count: int = 21) -> Batches:
    x = normal(count, 3)
    return Batches(x, (x[:, 0] > 0).astype(np.int64), batch_size=4, shuffle=True, seed=5)


def small_trainer(*callbacks: Callback, seed: int = 0, make: Any = Adam, **options: Any) -> Trainer:
    manual_seed(seed)
    model = small_model()
    return Trainer(model, cross_entropy, make(model.parameters(), lr=0.05), callbacks=callbacks, **options)


def weights(trainer: Trainer) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in trainer.model.state_dict().items()}


class At(Callback):
    """Does something at one place: after an optimizer step, or at the end of an epoch."""

    def __init__(self, action: Callable[[Trainer], object], step: int = -1, epoch: int = -1) -> None:
        self.action, self.step, self.epoch = action, step, epoch

    def on_batch_end(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            self.action(trainer)

    def on_epoch_end(self, trainer: Trainer) -> None:
        if trainer.epoch == self.epoch:
            self.action(trainer)


def fail(trainer: Trainer) -> None:
    raise ConnectionError("the power failed")


# batches


def test_batches_are_tensors_under_the_dtype_rule_and_cover_the_data() -> None:
    x, y = np.arange(10.0)[:, None], np.arange(10, dtype=np.uint8)
    loader = Batches(x, y, batch_size=4)
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert [len(targets) for _, targets in batches] == [4, 4, 2]
    assert {inputs.dtype for inputs, _ in batches} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(np.concatenate([inputs.data for inputs, _ in batches]), x)
    np.testing.assert_array_equal(np.concatenate([targets.data for _, targets in batches]), y)
    assert len(Batches(x, y, 4, drop_last=True)) == len(list(Batches(x, y, 4, drop_last=True))) == 2
    assert next(iter(Batches(Tensor(x), y.astype(np.int32))))[1].dtype == np.int64


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def epochs(loader: Batches, count: int) -> list[list[int]]:
        return [[int(i) for _, targets in loader for i in targets.data] for _ in range(count)]

    x = np.zeros((30, 1), np.float32)
    first = epochs(Batches(x, np.arange(30), 7, shuffle=True, seed=3), 4)
    assert all(sorted(order) == list(range(30)) for order in first)
    assert len({tuple(order) for order in first}) == 4
    manual_seed(99)
    again = Batches(x, np.arange(30), 7, shuffle=True, seed=3)
    again.set_epoch(2)
    assert epochs(again, 2) == first[2:]
    assert epochs(Batches(x, np.arange(30), 7, shuffle=True, seed=4), 1) != first[:1]


def test_large_arrays_are_not_copied() -> None:
    x, y = np.zeros((6, 2), np.float32), np.zeros(6, np.int64)
    loader = Batches(x, y, 3)
    inputs, _ = next(iter(loader))
    assert np.shares_memory(inputs.data, x)


def test_batches_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="3 inputs, but 4 targets"):
        Batches(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match=r"batch_size.*0"):
        Batches(np.zeros(3), np.zeros(3), batch_size=0)
    with pytest.raises(TypeError):
        Batches(np.zeros(3), np.zeros(3), batch_size=2.5)  # type: ignore[arg-type]


# metrics


def test_metrics_of_a_few_answers() -> None:
    logits = np.array([[1.0, 3, 2], [5, 1, 4], [0, 0, 1]])
    assert accuracy(logits, [1, 2, 2]) == pytest.approx(2 / 3)
    assert top_k_accuracy(Tensor(logits), [1, 2, 2], k=2) == 1.0
    assert top_k_accuracy(logits * np.nan, [1, 2, 2], k=2) == 0.0
    table = confusion_matrix(logits.argmax(-1), [1, 2, 2], 3)
    assert table.tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 1]] and table.dtype == np.int64
    scores = precision_recall_f1(table)
    np.testing.assert_allclose(scores.precision, [0, 1, 1])
    np.testing.assert_allclose(scores.recall, [0, 1, 0.5])
    np.testing.assert_allclose(scores.f1, [0, 1, 2 / 3])


def test_an_average_weighs() -> None:
    mean = Average()
    assert math.isnan(mean.value)
    mean.add(1.0, 64)
    mean.add(0.0)
    assert mean.value == pytest.approx(64 / 65)


# modes and gradients


def test_evaluating_puts_every_mode_back_after_an_error_too() -> None:
    model = small_model()
    model[3].eval()
    with pytest.raises(KeyError), evaluating(model):
        assert not any(part.training for _, part in model.named_modules()) and not is_grad_enabled()
        raise KeyError
    assert is_grad_enabled()
    assert [part.training for part in model] == [True, True, True, False, True] and model.training


def test_accumulated_gradients_agree_with_finite_differences() -> None:
    x, y = normal(7, 3), np.array([0, 1, 1, 0, 1, 0, 0])
    model = Sequential(Linear(3, 4), ReLU(), Linear(4, 2))
    for parameter in model.parameters():
        parameter.data = parameter.data.astype(np.float64)
    group = [(Tensor(x[part], np.float64), Tensor(y[part])) for part in (slice(0, 4), slice(4, 5), slice(5, 7))]
    accumulate_gradients(model, cross_entropy, group)

    def mean_loss() -> float:
        return cross_entropy(model(Tensor(x, np.float64)), y).item()

    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        for place in np.ndindex(parameter.shape):
            middle = parameter.data[place]
            parameter.data[place] = middle + 1e-6
            above = mean_loss()
            parameter.data[place] = middle - 1e-6
            slope = (above - mean_loss()) / 2e-6
            parameter.data[place] = middle
            assert parameter.grad.data[place] == pytest.approx(slope, abs=1e-7), (name, place)


def test_four_batches_of_16_train_as_one_of_64_does() -> None:
    x, y = normal(160, 3), np.arange(160) % 2
    trained = []
    for size, accumulate in ((64, 1), (16, 4)):
        manual_seed(0)
        model = Sequential(Linear(3, 8), ReLU(), Linear(8, 2))
        trainer = Trainer(model, cross_entropy, SGD(model.parameters(), lr=0.5), accumulate=accumulate)
        history = trainer.fit(Batches(x, y, size, shuffle=True), epochs=3)
        assert trainer.step == 9, "the last step of an epoch has what is left"
        trained.append((history["loss"], model.state_dict()))
    (one_loss, one), (parts_loss, parts) = trained
    np.testing.assert_allclose(parts_loss, one_loss, rtol=1e-5)
    for name in one:
        np.testing.assert_allclose(parts[name], one[name], rtol=1e-4, atol=1e-6)


# the trainer


def test_history_is_made_of_plain_numbers_that_weigh_each_sample_once() -> None:
    trainer = small_trainer(metrics={"accuracy": accuracy})
    loader, check = small_data(), small_data(9)
    history = trainer.fit(loader, epochs=3, validation=check)
    assert list(history) == ["loss", "accuracy", "lr", "val_loss", "val_accuracy"]
    assert json.loads(json.dumps(history)) == history and {len(numbers) for numbers in history.values()} == {3}
    assert history is trainer.history and (trainer.epoch, trainer.batch, trainer.step) == (3, 0, 18)
    whole = Batches(check.inputs, check.targets, batch_size=9)
    assert trainer.evaluate(check)["loss"] == pytest.approx(trainer.evaluate(whole)["loss"], rel=1e-6)
    assert trainer.evaluate(check)["accuracy"] == trainer.evaluate(whole)["accuracy"] == history["val_accuracy"][-1]
    trainer.fit(loader, epochs=4)
    assert math.isnan(history["val_loss"][3]) and len(history["loss"]) == 4


def test_predict_is_in_evaluation_mode_and_does_not_depend_on_the_batch_size() -> None:
    trainer = small_trainer()
    x = normal(11, 3)
    whole = trainer.predict(x)
    assert whole.shape == (11, 2) and whole.dtype == np.float32
    np.testing.assert_allclose(trainer.predict(Tensor(x), batch_size=2), whole, rtol=1e-5, atol=1e-6)
    assert trainer.predict(np.zeros((0, 3))).shape == (0, 2)
    assert trainer.model.training and not np.any(trainer.model[0].mean)


@pytest.mark.parametrize(("interval", "want"), [("step", [0.05, 0.025, 0.0125]), ("epoch", [0.05, 0.05, 0.025])])
def test_a_scheduler_moves_by_the_step_or_by_the_epoch(interval: str, want: list[float]) -> None:
    trainer = small_trainer()
    size = 6 if interval == "step" else 2
    trainer.scheduler, trainer.scheduler_interval = StepLR(trainer.optimizer, size, gamma=0.5), interval
    assert trainer.fit(small_data(), epochs=3)["lr"] == pytest.approx(want)


def test_options_that_make_no_sense_are_named() -> None:
    for options, message in [
        ({"accumulate": 0}, "accumulate.*0"),
        ({"scheduler_interval": "batch"}, "'batch'"),
        ({"metrics": {"loss": accuracy}}, "'loss'"),
    ]:
        with pytest.raises(ValueError, match=message):
            small_trainer(**options)
    for make, message in [
        (lambda: EarlyStopping(patience=0), "patience.*0"),
        (lambda: EarlyStopping(mode="least"), "'least'"),
        (lambda: Checkpoint("x", every_epochs=0), "every_epochs.*0"),
        (lambda: Checkpoint("x", every_epochs=None), "nothing would be written"),
        (lambda: small_trainer(EarlyStopping("val_loss")).fit(small_data(), 1), "'val_loss'.*loss, lr.*validation"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


def test_a_loader_that_gives_nothing_is_named() -> None:
    with pytest.raises(ValueError, match=r"fit.*epoch 1"):
        small_trainer().fit([], 1)
    generator = (batch for batch in list(small_data()))
    with pytest.raises(ValueError, match=r"fit.*epoch 2.*generator"):
        small_trainer().fit(generator, 2)
    with pytest.raises(ValueError, match="evaluate"):
        small_trainer().evaluate([])


def test_early_stopping_stops_and_brings_the_best_weights_back() -> None:
    kept: dict[int, dict[str, bytes]] = {}

    class Keep(Callback):
        def on_epoch_end(self, trainer: Trainer) -> None:
            kept[trainer.epoch] = weights(trainer)

    stopper = EarlyStopping(patience=3, restore_best=True)
    trainer = small_trainer(stopper, Keep(), make=SGD)
    trainer.optimizer.param_groups[0]["lr"] = 1.0
    flipped = small_data(12)
    flipped.targets = 1 - flipped.targets  # the better it learns, the worse it does here
    trainer.fit(small_data(), epochs=50, validation=flipped)
    losses = trainer.history["val_loss"]
    assert stopper.best_epoch == 1 + int(np.argmin(losses)) and trainer.epoch == stopper.best_epoch + 3 < 50
    assert weights(trainer) == kept[stopper.best_epoch]


# numbers that break


def test_nan_in_the_data_is_found_before_a_weight_changes() -> None:
    trainer = small_trainer(accumulate=2)
    loader = list(small_data())
    loader[3][0].data[1, 2] = np.nan
    trainer.fit(loader[:2], epochs=1)
    before = weights(trainer) | {"0.mean": b""}
    trainer.epoch = 0
    message = r"step 2 \(epoch 1, batch 3\): the loss is nan; not finite in input of batch 2: 1 of 12.*the data"
    with np.errstate(invalid="ignore"), pytest.raises(FloatingPointError, match=message):
        trainer.batch = 2
        trainer.fit(loader, epochs=1)
    assert weights(trainer) | {"0.mean": b""} == before and trainer.averages == {}


def test_a_step_that_is_too_long_is_blamed_on_the_rate_and_the_parameter_is_named() -> None:
    model = Sequential(Linear(2, 4), Linear(4, 1))
    trainer = Trainer(model, mse_loss, SGD(model.parameters(), lr=1e30))
    x = np.ones((4, 2))
    message = r"step \d+ .*the loss is (inf|nan); not finite in .*0\.weight: .* of 8 numbers.*learning rate"
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=message):
        for parameter in model.parameters():
            parameter.data *= 1e3
        trainer.fit(Batches(x, x[:, :1], 4), epochs=10)


def test_log_of_zero_is_blamed_on_the_gradient_or_the_loss() -> None:
    class Log(Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = Parameter([1.0])

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.w).log()

    model = Log()
    trainer = Trainer(model, lambda out, _: -out.mean(), SGD(model.parameters(), lr=0.1))
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=r"gradient of w: 1 of 1.*log"):
        trainer.fit([(Tensor([1.0, 0.0]), Tensor([0.0, 0.0]))], epochs=1)


def test_gradients_that_are_clipped_must_have_a_finite_norm() -> None:
    class Root(Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = Parameter([0.0])

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.w).sqrt()

    model = Root()
    trainer = Trainer(model, lambda out, _: out.mean(), SGD(model.parameters(), lr=0.1), max_grad_norm=1.0)
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=r"norm.*gradient of w: 1 of 1.*sqrt"):
        trainer.fit([(Tensor([1.0]), Tensor([0.0]))], epochs=1)
    assert model.w.data.tolist() == [0.0]


# progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_tell_one_epoch_each() -> None:
    out = io.StringIO()
    trainer = small_trainer(ProgressBar(out), metrics={"accuracy": accuracy})
    trainer.fit(small_data(), epochs=3, validation=small_data())
    lines = out.getvalue().splitlines()
    assert len(lines) == 3 and "\r" not in out.getvalue()
    for number, line in enumerate(lines, 1):
        assert line.startswith(f"epoch {number}/3  [{'#' * 20}] 6/6  loss ")
        assert " accuracy " in line and " val_loss " in line and line.endswith("batches/s") and "lr" not in line


def test_a_terminal_gets_a_line_that_moves_and_stays_within_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    out = Terminal()
    small_trainer(ProgressBar(out, every_s=0.0)).fit(small_data(), epochs=1)
    *steps, last = out.getvalue().split("\r")[1:]
    assert len(steps) == 6 and "1/6" in steps[0] and " left" in steps[0] and " left" not in last
    assert all(len(step.rstrip()) <= 59 and "\n" not in step for step in steps)
    assert last.endswith("\n") and out.getvalue().count("\n") == 1


def test_a_terminal_is_not_written_to_at_every_step() -> None:
    out = Terminal()
    small_trainer(ProgressBar(out, every_s=3600)).fit(small_data(), epochs=2)
    assert out.getvalue().count("\r") == 2, "the lines of the two epochs"


def test_a_loader_without_a_length_has_neither_bar_nor_time_left() -> None:
    class Endless:
        def __iter__(self) -> Iterator[Any]:
            return iter(list(small_data()))

    out = io.StringIO()
    small_trainer(ProgressBar(out)).fit(Endless(), epochs=1)
    assert out.getvalue().startswith("epoch 1/1  6 batches  loss ")


def test_ctrl_c_ends_the_line_and_goes_on() -> None:
    def interrupt(trainer: Trainer) -> None:
        raise KeyboardInterrupt

    out = Terminal()
    with pytest.raises(KeyboardInterrupt):
        small_trainer(ProgressBar(out, every_s=0.0), At(interrupt, step=3)).fit(small_data(), epochs=1)
    assert out.getvalue().endswith("\n") and out.getvalue().count("\n") == 1
    out = Terminal()
    with pytest.raises(KeyboardInterrupt):
        small_trainer(ProgressBar(out), At(interrupt, epoch=1)).fit(small_data(), epochs=2)
    assert out.getvalue().count("\n") == 1, "the line had its end already"


def test_a_real_terminal_is_known_for_one() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb"), os.fdopen(follower, "w") as out:
        small_trainer(ProgressBar(out)).fit(small_data(), epochs=1)
        assert os.read(leader, 1000).startswith(b"\repoch 1/1")


# stop and resume


def run(path: Path | None = None, *more: Callback, resume: bool = False, **options: Any) -> Trainer:
    """A training with all that has a state; the same from wherever it is resumed."""
    savers = [Checkpoint(path, every_steps=2)] if path else []
    trainer = small_trainer(*savers, EarlyStopping(patience=9, restore_best=True), *more, accumulate=2, **options)
    trainer.scheduler = CosineWarmupLR(trainer.optimizer, warmup_steps=4, total_steps=15)
    if resume:
        assert path is not None
        trainer.resume(path)
    trainer.fit(small_data(), epochs=5, validation=small_data(10))
    return trainer


@pytest.mark.parametrize("make", [SGD, Adam, AdamW], ids=lambda make: make.__name__)
@pytest.mark.parametrize("step", [3, 7, 14])
def test_a_resumed_training_is_the_same_to_the_bit(make: Any, step: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"make": make, "metrics": {"accuracy": accuracy}, "max_grad_norm": 0.5}
    smooth = run(**options)
    with pytest.raises(ConnectionError):
        run(tmp_path / "run.npz", At(fail, step=step), **options)
    manual_seed(123)
    resumed = run(tmp_path / "run.npz", resume=True, **options)
    assert weights(resumed) == weights(smooth)
    assert json.dumps(resumed.history) == json.dumps(smooth.history)
    assert default_generator().bit_generator.state == smooth.state_dict()["generator"]


def test_an_epoch_that_is_saved_at_its_end_holds_what_every_callback_knows_then(tmp_path: Path) -> None:
    class Counting(Callback):
        saved = ("epochs",)

        def __init__(self) -> None:
            self.epochs = 0

        def on_epoch_end(self, trainer: Trainer) -> None:
            self.epochs += 1

    path = tmp_path / "run.npz"
    small_trainer(Checkpoint(path), Counting(), Counting()).fit(small_data(), epochs=2)
    state = read_checkpoint(path)
    assert state["callbacks"] == {"Counting": {"epochs": 2}, "Counting-2": {"epochs": 2}}
    assert state["counters"] == {"epoch": 2, "batch": 0, "step": 12, "should_stop": False}


def test_patience_is_not_forgotten_and_a_stop_stays(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"

    def trainer(patience: int) -> Trainer:
        return small_trainer(Checkpoint(path), EarlyStopping("lr", patience), make=SGD)  # a rate that never improves

    trainer(4).fit(small_data(), epochs=3)
    resumed = trainer(4)
    resumed.resume(path)
    resumed.fit(small_data(), epochs=50)
    assert resumed.epoch == 5 and resumed.should_stop
    again = trainer(4)
    again.resume(path)
    again.fit(small_data(), epochs=50)
    assert again.epoch == 5, "it had been told to stop"


def test_monitor_keeps_the_best(tmp_path: Path) -> None:
    path = tmp_path / "best.npz"
    trainer = small_trainer(Checkpoint(path, monitor="val_accuracy", mode="max"), metrics={"accuracy": accuracy})
    history = trainer.fit(small_data(), epochs=6, validation=small_data(14))
    assert read_checkpoint(path)["counters"]["epoch"] == 1 + int(np.argmax(history["val_accuracy"]))
    assert read_checkpoint(path)["callbacks"] == {"Checkpoint": {"best": max(history["val_accuracy"])}}


def test_a_loader_that_draws_from_the_default_generator_does_not_disturb_a_resume(tmp_path: Path) -> None:
    class Noisy:
        def __iter__(self) -> Iterator[Any]:
            for x, y in list(Batches(normal(12, 3), np.arange(12) % 2, 4)):
                yield Tensor(x.data + default_generator().normal(0, 0.1, x.shape)), y

    def train(*callbacks: Callback) -> Trainer:
        trainer = small_trainer(*callbacks)
        trainer.fit(Noisy(), epochs=2)
        return trainer

    path, smooth = tmp_path / "run.npz", train()
    with pytest.raises(ConnectionError):
        train(Checkpoint(path, every_steps=1), At(fail, step=6))
    resumed = small_trainer()
    resumed.resume(path)
    assert (resumed.epoch, resumed.batch) == (1, 2)
    resumed.fit(Noisy(), epochs=2)
    assert weights(resumed) == weights(smooth)


def test_a_checkpoint_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    trainer = small_trainer()
    trainer.fit(small_data(), epochs=1)
    save_checkpoint(path, trainer)
    state = read_checkpoint(path)

    def other(make: Any = Adam, *callbacks: Callback, schedule: bool = False, hidden: int = 8) -> Trainer:
        manual_seed(1)
        model = Sequential(Mean(3), Linear(3, hidden), ReLU(), Dropout(0.3), Linear(hidden, 2))
        optimizer = make(model.parameters(), lr=0.02)
        plan = StepLR(optimizer, 3) if schedule else None
        return Trainer(model, cross_entropy, optimizer, scheduler=plan, callbacks=callbacks)

    for misfit, message in [
        (other(hidden=7), r"1\.weight"),
        (other(SGD), "momentum"),
        (other(Adam, EarlyStopping()), "EarlyStopping"),
        (other(schedule=True), "scheduler"),
    ]:
        misfit.fit(small_data(), epochs=0)
        before = repr(misfit.state_dict())
        with pytest.raises(ValueError, match=rf"(?s)run\.npz.*{message}"):
            load_checkpoint(path, misfit)
        assert repr(misfit.state_dict()) == before
    for missing in state:
        fresh = other()
        before = repr(fresh.state_dict())
        write_checkpoint(path, {name: part for name, part in state.items() if name != missing})
        with pytest.raises(ValueError, match=missing):
            fresh.resume(path)
        assert repr(fresh.state_dict()) == before


# the file


def test_no_byte_of_a_file_can_be_lost_or_changed_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    write_checkpoint(path, {"w": np.arange(40.0), "n": [1, (2.5, "three")], "deep": {"b": np.array(True)}})
    whole, told = path.read_bytes(), repr(read_checkpoint(path))
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"state\.npz"):
            read_checkpoint(path)
    noticed = 0
    for place in range(0, len(whole), 13):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            assert repr(read_checkpoint(path)) == told  # a date or another field that does not matter
        except (ValueError, NotImplementedError):
            noticed += 1
    assert noticed > 50


def test_foreign_files_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    np.savez(path, a=np.ones(3))
    with pytest.raises(ValueError, match=r"file\.npz.*no checkpoint"):
        read_checkpoint(path)
    np.savez(path, manifest=np.array([{"format": "tinytorch checkpoint"}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"file\.npz.*no checkpoint"):
        read_checkpoint(path)
    np.save(tmp_path / "array.npy", np.ones(3))
    with pytest.raises(ValueError, match="no checkpoint"):
        read_checkpoint(tmp_path / "array.npy")
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "nothing.npz")
    with pytest.raises(OSError):
        read_checkpoint(tmp_path)
    for manifest in ({"format": "tinytorch checkpoint", "version": 2}, {"format": "other", "version": 1}):
        np.savez(path, manifest=np.frombuffer(json.dumps(manifest).encode(), np.uint8))
        with pytest.raises(ValueError, match=r"version \d.*this program reads 'tinytorch checkpoint', version 1"):
            read_checkpoint(path)


def test_readers_meet_a_whole_file_while_it_is_written(tmp_path: Path) -> None:
    path, done, seen = tmp_path / "state.npz", threading.Event(), set()
    write_checkpoint(path, {"n": 0, "w": np.full(1000, 0.0)})

    def read() -> None:
        while not done.is_set():
            state = read_checkpoint(path)
            seen.add(state["n"] if np.array_equal(state["w"], np.full(1000, state["n"])) else -1)

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(1, 40):
        write_checkpoint(path, {"n": n, "w": np.full(1000, float(n))})
    done.set()
    reader.join(timeout=60)
    assert not reader.is_alive() and -1 not in seen


PROGRAM = """
import json, os, signal, sys
from pathlib import Path
import numpy as np
from tinytorch.core.layers import Dropout, Linear, Sequential
from tinytorch.core.losses import cross_entropy
from tinytorch.core.optimizers import Adam
from tinytorch.core.tensor import manual_seed
from tinytorch.core.training import Batches, Checkpoint, EarlyStopping, Trainer

path, kill_in = Path(sys.argv[1]), int(sys.argv[2])

writes = 0
sync = os.fsync
def fsync(file):
    global writes
    writes += 1
    if writes == kill_in:  # half of the new file is there
        os.ftruncate(file, os.fstat(file).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    sync(file)
os.fsync = fsync

manual_seed(0)
x = np.random.default_rng(0).normal(size=(50, 4))
model = Sequential(Linear(4, 16), Dropout(0.4), Linear(16, 2))
callbacks = [Checkpoint(path, every_steps=3), EarlyStopping()]
trainer = Trainer(model, cross_entropy, Adam(model.parameters(), lr=0.02), callbacks=callbacks)
if path.exists():
    trainer.resume(path)
    print("resumed in step", trainer.step)
loader = Batches(x, (x[:, 0] > 0).astype(int), 8, shuffle=True)
trainer.fit(loader, epochs=4, validation=loader)
print(json.dumps([trainer.history, {name: array.tobytes().hex() for name, array in model.state_dict().items()}]))
"""


def test_killed_in_the_middle_of_writing_it_resumes_to_the_same_bit(tmp_path: Path) -> None:
    def play(path: Path, kill_in: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, str(path), str(kill_in)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    smooth = play(tmp_path / "smooth.npz", 0)
    assert smooth.returncode == 0, smooth.stderr
    path = tmp_path / "run.npz"
    first = play(path, 1)
    assert first.returncode == -signal.SIGKILL and not path.exists(), "killed in the first writing: no file yet"
    for kill_in, step in ((4, 7), (5, 15)):  # after 3, 6, 7 (the end of an epoch); then after 9, 12, 14 (another), 15
        killed = play(path, kill_in)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert read_checkpoint(path)["counters"]["step"] == step
    resumed = play(path, 0)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout == f"resumed in step 15\n{smooth.stdout}"
