"""A drawing of all rows: how far each row is from the target."""

from __future__ import annotations

import itertools
from typing import Any

import matplotlib
from _figures import OURS, Row, Summary, number

matplotlib.use("agg")  # no display is needed

from matplotlib import pyplot
from matplotlib.axes import Axes

_BETTER, _WORSE, _FLOOR, _OTHERS = "#1a7f37", "#c93c37", "#57606a", "#8c959f"
_ROW_INCHES = 0.34
_LARGEST = 30.0


def plot(answer: dict[str, Any], path: str) -> None:
    """Draw the JSON of `scripts/bench --json`.

    Units differ from row to row, so each figure is divided by the row's target (or the target by
    the figure, where more is better): 1 is the target, and left of 1 is better.
    """
    rows = [row for told in answer["rows"] if (row := Row.from_json(told)).target is not None]
    figure, axes = pyplot.subplots(figsize=(11, 1.6 + _ROW_INCHES * len(rows)))
    marks = _marks(rows)
    for place, row in enumerate(rows):
        _draw(axes, place, row, marks)
    _frame(axes, rows)
    _explain(axes, marks)
    machine = answer["machine"]
    figure.text(
        *(0.01, 0.005),
        f"{machine['processors']}, {machine['kernel']}, {machine['python']}",
        fontsize=7,
        color=_FLOOR,
    )
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _draw(axes: Axes, place: int, row: Row, marks: dict[str, str]) -> None:
    colour = _BETTER if row.verdict == "met" else _WORSE
    axes.axhline(place, color="#eaeef2", zorder=0)
    for name, summary in row.figures.items():
        median, low, high = _relative(row, summary)
        if name == OURS:
            axes.plot([low, high], [place, place], color=colour, linewidth=4, alpha=0.4)
            axes.plot(median, place, "o", color=colour, markersize=8, zorder=3)
        elif name == row.floor:
            axes.plot(median, place, "D", color=_FLOOR, markersize=6, markerfacecolor="white")
        else:
            axes.plot(median, place, marks[name], color=_OTHERS, markersize=5)
    axes.annotate(
        f"{number(row.ours)} {row.unit}",
        (1.01, place),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=8,
        color=colour,
    )


def _relative(row: Row, summary: Summary) -> tuple[float, float, float]:
    assert row.target is not None
    shares = []
    for value in (summary.median, summary.low, summary.high):
        share = row.target.limit / value if row.target.at_least else value / row.target.limit
        shares.append(min(max(share, 1 / _LARGEST), _LARGEST))
    return shares[0], min(shares), max(shares)


def _frame(axes: Axes, rows: list[Row]) -> None:
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [f"{row.benchmark}: {row.case}" for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    ticks = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
    low, high = axes.get_xlim()
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.minorticks_off()
    axes.set_xlabel("beside the target, which is 1: left of the line is better")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _marks(rows: list[Row]) -> dict[str, str]:
    """Return a mark for each way that is neither ours nor a row's floor."""
    names = {name: None for row in rows for name in row.figures if name not in (OURS, row.floor)}
    return dict(zip(names, itertools.cycle("s^v*Xp<>"), strict=False))


def _explain(axes: Axes, marks: dict[str, str]) -> None:
    shown = [
        ("target met", "o", _BETTER, _BETTER),
        ("target missed", "o", _WORSE, _WORSE),
        ("the floor", "D", _FLOOR, "white"),
        *((name, mark, _OTHERS, _OTHERS) for name, mark in marks.items()),
    ]
    axes.legend(
        [
            axes.plot([], [], mark, color=colour, markerfacecolor=inside)[0]
            for _, mark, colour, inside in shown
        ],
        [name for name, *_ in shown],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=6,
        frameon=False,
        fontsize=8,
        columnspacing=1.2,
        handletextpad=0.3,
    )
