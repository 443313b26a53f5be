"""Whether confidences can be trusted, as a drawing: of what was said with 80 % confidence, 80 % should be right.

Points are groups of predictions of similar confidence (the reliability diagram of DeGroot and Fienberg 1983). SVG
coordinates are CSS pixels; colors come from the style sheet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from engine.report.markup import count, percent, text

_WIDTH, _HEIGHT = 380, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 372, 10, 164
_SMALLEST, _LARGEST = 2.5, 7.0  # radii of a point: its area says how many predictions it holds
_TICKS: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, slots=True)
class Reliability:
    """Groups of predictions, in order of confidence: (mean confidence, accuracy, how many), the first two in [0, 1].

    Raises ValueError when they are out of range or order.
    """

    name: str
    meaning: str
    points: tuple[tuple[float, float, int], ...]

    def __post_init__(self) -> None:
        for confidence, accuracy, size in self.points:
            if not (0 <= confidence <= 1 and 0 <= accuracy <= 1 and size > 0):
                raise ValueError(
                    f"{self.name}: a point must be (confidence in [0, 1], accuracy in [0, 1], count above 0), "
                    f"got {(confidence, accuracy, size)}"
                )
        if any(left[0] > right[0] for left, right in pairwise(self.points)):
            raise ValueError(f"{self.name}: points must be in order of confidence")


def reliability_html(chart: Reliability) -> str:
    """The chart: a point a group, a line where exact confidences would lie, and a line that reads the groups out."""
    drawing = _svg(chart) if chart.points else '<p class="empty">No values</p>'
    total = count(sum(size for *_, size in chart.points), "predictions")
    return (
        f'<figure class="chart"><figcaption><h3>{text(chart.name)}</h3><p class="meaning">{text(chart.meaning)}</p>'
        f'</figcaption>{drawing}<p class="readout" aria-live="polite">{total}</p></figure>'
    )


def _svg(chart: Reliability) -> str:
    grid = "".join(
        f'<path class="grid" d="M{_LEFT} {_y(tick):.1f}H{_RIGHT}"/>'
        f'<text class="tick" x="{_LEFT - 6}" y="{_y(tick) + 4:.1f}" text-anchor="end">{100 * tick:.0f} %</text>'
        f'<path class="axis" d="M{_x(tick):.1f} {_BOTTOM}v4"/>'
        f'<text class="tick" x="{_x(tick):.1f}" y="{_BOTTOM + 17}" text-anchor="middle">{100 * tick:.0f}</text>'
        for tick in _TICKS
    )
    exact = f'<path class="exact" d="M{_x(0):.1f} {_y(0):.1f}L{_x(1):.1f} {_y(1):.1f}"/>'
    most = max(size for *_, size in chart.points)
    line = "L".join(f"{_x(confidence):.1f} {_y(accuracy):.1f}" for confidence, accuracy, _ in chart.points)
    dots = "".join(
        f'<circle class="dot s0" cx="{_x(confidence):.1f}" cy="{_y(accuracy):.1f}" r="{_radius(size, most):.1f}"/>'
        for confidence, accuracy, size in chart.points
    )
    # a group answers halfway to its neighbors; its <title> is what the script reads out
    places = [_x(confidence) for confidence, *_ in chart.points]
    edges = [float(_LEFT), *((left + right) / 2 for left, right in pairwise(places)), float(_RIGHT)]
    areas = "".join(
        f'<rect class="bin" x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}" height="{_BOTTOM - _TOP}">'
        f"<title>{percent(confidence)} sure\n{percent(accuracy)} right, of {count(size)}</title></rect>"
        for (left, right), (confidence, accuracy, size) in zip(pairwise(edges), chart.points, strict=True)
    )
    label = f"{text(chart.name)}, {len(chart.points)} groups; left and right arrow keys read them out"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" tabindex="0" aria-label="{label}">{grid}'
        f'<path class="axis" d="M{_LEFT + 4} {_BOTTOM}H{_RIGHT - 4}"/>{exact}'
        f'<path class="line s0" d="M{line}"/>{dots}{areas}</svg>'
    )


def _x(share: float) -> float:
    return _LEFT + 8 + (_RIGHT - _LEFT - 16) * share


def _y(share: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * share


def _radius(size: int, most: int) -> float:
    return max(_SMALLEST, _LARGEST * math.sqrt(size / most))
