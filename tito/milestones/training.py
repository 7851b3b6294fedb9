"""What the milestones that learn for minutes share: a stopwatch, and a checkpoint to go on from after a stop.

It imports ``tinytorch``, so a program imports it after ``begin``.
"""

from __future__ import annotations

import time
from pathlib import Path

from tinytorch.core.training import Callback, Trainer
from tito.errors import TitoError


class Stopwatch(Callback):
    """How long training has taken, over all stops and resumes: ``seconds``, as of the last epoch that was finished."""

    saved = ("seconds",)
    seconds = 0.0

    def on_fit_start(self, trainer: Trainer) -> None:
        self._began = time.perf_counter() - self.seconds

    def on_epoch_end(self, trainer: Trainer) -> None:
        self.seconds = time.perf_counter() - self._began


def begin_or_resume(trainer: Trainer, checkpoint: Path, *beside: Path, resume: bool) -> bool:
    """Go on from ``checkpoint`` if ``resume``; else keep what a run left there, and ``beside`` it, as ``.bak``.

    Returns
    -------
    bool
        Whether it goes on.

    Raises
    ------
    TitoError
        If it shall go on, and there is no checkpoint.
    """
    if not resume:
        for old in filter(Path.exists, (checkpoint, *beside)):
            old.replace(f"{old}.bak")
        return False
    if not checkpoint.exists():
        raise TitoError("no run with these settings was stopped", place=str(checkpoint), next_step="leave out --resume")
    trainer.resume(checkpoint)
    return True
