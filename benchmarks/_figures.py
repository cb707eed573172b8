"""Figures: summaries, targets, rows and the printed tables. Pure."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

OURS = "supervisor"
BARE = "bare loop"

HEADINGS = ("benchmark", "case", OURS, "floor", "ratio", "target", "verdict", "beside it")


@attrs.frozen
class Summary:
    """The summary of many figures.

    Attributes:
        median: the median.
        low: a quarter of the figures is below.
        high: a quarter of the figures is above.
        count: the number of figures.
    """

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Summarize at least one figure."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))

    def text(self, unit: str) -> str:
        """Return a text for people: the median, and the range of the middle half."""
        if self.count == 1:
            return f"{number(self.median)} {unit}"
        return f"{number(self.median)} {unit} ({number(self.low)} to {number(self.high)})"


@attrs.frozen
class Target:
    """The target of a figure.

    Attributes:
        text: the target in words, for the table.
        limit: the limit, in the row's unit.
        at_least: whether more is better.
    """

    text: str
    limit: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Whether a figure is good enough."""
        return value >= self.limit if self.at_least else value <= self.limit


@attrs.frozen(kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        benchmark: the name of the benchmark.
        case: what was measured: the runtime, the number of containers.
        unit: the unit of all figures.
        figures: the figures of each way, by name: ``OURS``, the floor, the rivals.
        floor: the name of the way that ours is compared with, or None.
        target: the target, or None.
    """

    benchmark: str
    case: str
    unit: str
    figures: Mapping[str, Summary]
    floor: str | None = None
    target: Target | None = None

    @property
    def ours(self) -> float:
        """The library's median."""
        return self.figures[OURS].median

    @property
    def ratio(self) -> float | None:
        """The library's median, divided by the floor's."""
        return None if self.floor is None else self.ours / self.figures[self.floor].median

    @property
    def verdict(self) -> str:
        """Whether the target is met."""
        if self.target is None:
            return ""
        return "met" if self.target.met(self.ours) else "missed"

    def cells(self) -> list[str]:
        """Return the cells of the table's columns (`HEADINGS`)."""
        floor = "" if self.floor is None else self.figures[self.floor].text(self.unit)
        if self.floor not in (None, BARE):
            floor = f"{self.floor}: {floor}"
        beside = [
            f"{name} {number(figure.median)}"
            for name, figure in self.figures.items()
            if name not in (OURS, self.floor)
        ]
        return [
            self.benchmark,
            self.case,
            self.figures[OURS].text(self.unit),
            floor,
            "" if self.ratio is None else f"{self.ratio:.2f}",
            "" if self.target is None else self.target.text,
            self.verdict,
            ", ".join(beside),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values; ``ratio`` and ``verdict`` are only for readers."""
        return {**attrs.asdict(self), "ratio": self.ratio, "verdict": self.verdict}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Row:
        """Return the row of which `to_json` made these values."""
        target = values["target"]
        return cls(
            benchmark=values["benchmark"],
            case=values["case"],
            unit=values["unit"],
            figures={name: Summary(**figure) for name, figure in values["figures"].items()},
            floor=values["floor"],
            target=None if target is None else Target(**target),
        )


def number(value: float) -> str:
    """Return a number with three significant digits."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def text_table(rows: Iterable[Row]) -> str:
    """Return a table for a terminal."""
    lines = _lines(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def markdown_table(rows: Iterable[Row]) -> str:
    """Return a table for a page."""
    heading, *lines = _lines(rows)
    return "\n".join(
        f"| {' | '.join(line)} |".replace("|  |", "| |")
        for line in [heading, ["---"] * len(heading), *lines]
    )


def _lines(rows: Iterable[Row]) -> list[list[str]]:
    """Return the headings and the cells, without empty columns."""
    cells = [row.cells() for row in rows]
    used = [any(line[column] for line in cells) for column in range(len(HEADINGS))]
    return [list(itertools.compress(line, used)) for line in [HEADINGS, *cells]]
