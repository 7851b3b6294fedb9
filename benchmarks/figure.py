"""The figure of ``speed.py``: the ratios, and how time and memory grow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from growth import GROWTH, SCALES, Growth
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

STYLE = Path(__file__).parents[1] / "tito" / "milestones" / "figures.mplstyle"
COLOURS = {"tinytorch": "C0", "torch": "C1", "autograd": "C2"}


def draw(results: Sequence[Any], lines: dict[str, dict[str, list[float]]], remark: str, path: Path) -> None:
    """Draw the ratios of ``results``, and beside them the ``lines`` by figure; save it."""
    columns = 1 + math.ceil(len(lines) / 2)
    with plt.style.context(STYLE):
        figure = plt.figure(figsize=(5.2 * columns, 8))
        grid = figure.add_gridspec(2, columns)
        _draw_ratios(figure.add_subplot(grid[:, 0]), results)
        for place, (name, points) in enumerate(lines.items()):
            _draw_growth(figure.add_subplot(grid[place % 2, 1 + place // 2]), GROWTH[name], points)
        figure.suptitle(f"tinytorch beside PyTorch and HIPS autograd{remark}", wrap=True)
        figure.savefig(path)
        plt.close(figure)


def _draw_ratios(ax: Axes, results: Sequence[Any]) -> None:
    for side, (framework, label) in enumerate((("tinytorch", "tinytorch"), ("autograd", "HIPS autograd"))):
        places = [place + 0.4 * side for place, one in enumerate(results) if framework in one.frameworks]
        ratios = [one.frameworks[framework].ratio for one in results if framework in one.frameworks]
        ax.barh(places, ratios, 0.4, color=COLOURS[framework], label=label)
        for place, ratio in zip(places, ratios, strict=True):
            ax.text(0.04, place, f"{ratio:.2f}", va="center", color="white")
    ax.axvline(1, color=COLOURS["torch"], label="PyTorch")
    ax.scatter(
        [one.goal for one in results], range(len(results)), marker="|", s=250, color="C4", label="goal", zorder=3
    )
    middles = [place + 0.2 * ("autograd" in one.frameworks) for place, one in enumerate(results)]
    ax.set_yticks(middles, [one.name for one in results])
    ax.invert_yaxis()
    ax.set_title("Time, PyTorch = 1")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.04), ncols=2)


def _draw_growth(ax: Axes, growth: Growth, points: dict[str, list[float]]) -> None:
    scale, unit = SCALES[growth.unit]
    drawn: set[str] = set()
    for label, ys in points.items():
        framework = growth.lines[label].framework
        dashes = "o--" if framework in drawn else "o-"  # the first of a framework's lines is its usual way
        drawn.add(framework)
        shown = [y * scale or math.nan for y in ys]  # no logarithm of nothing
        ax.loglog(growth.xs, shown, dashes, color=COLOURS[framework], label=label)
    ax.set_xticks(growth.xs, [f"{x:,}" for x in growth.xs])
    ax.minorticks_off()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.yaxis.set_major_formatter("{x:,g}")
    ax.set_xlabel(growth.x_label)
    ax.set_ylabel(unit)
    ax.set_title(growth.title)
    low, high = ax.get_ylim()
    ax.set_ylim(top=high * (high / low) ** (0.16 * len(points)))  # room for the legend
    ax.legend(loc="upper left")
