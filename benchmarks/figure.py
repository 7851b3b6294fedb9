"""The figure of ``speed.py``: the ratios, and how time and memory grow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from growth import GROWTH, Growth
from matplotlib.axes import Axes

STYLE = Path(__file__).parents[1] / "tito" / "milestones" / "figures.mplstyle"


def draw(results: Sequence[Any], lines: dict[str, dict[str, list[float]]], remark: str, path: Path) -> None:
    """Draw the ratios of ``results`` and the ``lines`` by figure, and save it."""
    with plt.style.context(STYLE):
        columns = 1 + len(lines)
        figure, axes = plt.subplots(1, columns, figsize=(4.2 * columns, 4), squeeze=False)
        _draw_ratios(axes[0][0], results)
        for ax, (name, points) in zip(axes[0][1:], lines.items(), strict=True):
            _draw_growth(ax, GROWTH[name], points)
        figure.suptitle(f"tinytorch against PyTorch{remark}")
        figure.savefig(path)
        plt.close(figure)


def _draw_ratios(ax: Axes, results: Sequence[Any]) -> None:
    names = [one.name for one in results]
    bars = ax.barh(names, [one.ratio for one in results])
    ax.bar_label(bars, labels=[f"{one.ratio:.2f}" for one in results], padding=4)
    ax.scatter([one.goal for one in results], names, marker="|", s=250, color="C4", label="goal", zorder=3)
    ax.axvline(1, color="0.4", linewidth=1)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.25 * max(one.ratio for one in results))
    ax.set_title("Time, PyTorch = 1")
    ax.legend(loc="lower right")


def _draw_growth(ax: Axes, growth: Growth, points: dict[str, list[float]]) -> None:
    scale, unit = (1e3, "ms") if growth.unit == "s" else (1e-6, "MB")
    for label, ys in points.items():
        ax.loglog(growth.xs, [y * scale or math.nan for y in ys], "o-", label=label)  # no logarithm of nothing
    ax.set_xticks(growth.xs, [f"{x:,}" for x in growth.xs])
    ax.minorticks_off()
    ax.set_xlabel(growth.x_label)
    ax.set_ylabel(unit)
    ax.set_title(growth.title)
    ax.set_ylim(top=5 * ax.get_ylim()[1])  # room for the legend
    ax.legend(loc="upper left")
