"""What is left after so much work, as a drawing: a line that falls, with the band in which it is expected to lie.

SVG coordinates are CSS pixels; colors come from the style sheet.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from engine.report.markup import count, percent, text

_WIDTH, _HEIGHT = 380, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 372, 10, 164
#: Ticks of the upright axis: the first of these steps that needs at most five.
_STEPS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_QUARTERS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
#: Points that are read out; the line has all.
_READ_OUT: Final = 40


@dataclass(frozen=True, slots=True)
class Curve:
    """Points (done, expected, low, high) in order of what is done: a count of `things`, and shares in [0, 1], low <=
    expected <= high. Raises ValueError when they are out of range or order."""

    name: str
    meaning: str
    points: tuple[tuple[int, float, float, float], ...]
    things: str = "images"

    def __post_init__(self) -> None:
        for done, expected, low, high in self.points:
            if not (done >= 0 and 0 <= low <= expected <= high <= 1):
                got = (done, expected, low, high)
                raise ValueError(f"{self.name}: a point must be (count, expected, low, high) in [0, 1], got {got}")
        if any(left[0] >= right[0] for left, right in pairwise(self.points)):
            raise ValueError(f"{self.name}: points must be in order of what is done")


def curve_html(curve: Curve) -> str:
    """The chart: a line, its band, and a line of text that reads points out."""
    drawing = _svg(curve) if len(curve.points) > 1 else '<p class="empty">No values</p>'
    total = count(curve.points[-1][0], curve.things) if curve.points else ""
    return (
        f'<figure class="chart"><figcaption><h3>{text(curve.name)}</h3><p class="meaning">{text(curve.meaning)}</p>'
        f'</figcaption>{drawing}<p class="readout" aria-live="polite">{total}</p></figure>'
    )


def _svg(curve: Curve) -> str:
    most = max(high for *_, high in curve.points) or _STEPS[0]
    step = next((step for step in _STEPS if most / step <= 5), _STEPS[-1])
    top, last = step * -(-most // step), curve.points[-1][0]

    def x(done: float) -> float:
        return _LEFT + 8 + (_RIGHT - _LEFT - 16) * done / last

    def y(share: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * share / top

    ticks = [step * at for at in range(round(top / step) + 1)]
    grid = "".join(
        f'<path class="grid" d="M{_LEFT} {y(tick):.1f}H{_RIGHT}"/><text class="tick" x="{_LEFT - 6}" '
        f'y="{y(tick) + 4:.1f}" text-anchor="end">{100 * tick:.{1 if step < 0.01 else 0}f} %</text>'
        for tick in ticks
    )
    grid += "".join(
        f'<path class="axis" d="M{x(last * part):.1f} {_BOTTOM}v4"/><text class="tick" x="{x(last * part):.1f}" '
        f'y="{_BOTTOM + 17}" text-anchor="{_anchor(part)}">{round(last * part):,}</text>'
        for part in _QUARTERS
    )
    upper = "L".join(f"{x(done):.1f} {y(high):.1f}" for done, _, _, high in curve.points)
    lower = "L".join(f"{x(done):.1f} {y(low):.1f}" for done, _, low, _ in reversed(curve.points))
    line = "L".join(f"{x(done):.1f} {y(expected):.1f}" for done, expected, *_ in curve.points)
    told = curve.points[:: max(1, len(curve.points) // _READ_OUT)]
    places = [x(done) for done, *_ in told]
    edges = [float(_LEFT), *((left + right) / 2 for left, right in pairwise(places)), float(_RIGHT)]
    areas = "".join(
        f'<rect class="bin" x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}" height="{_BOTTOM - _TOP}">'
        f"<title>{count(done, curve.things)}\n{percent(expected)} left ({percent(low)} to {percent(high)})</title>"
        "</rect>"
        for (left, right), (done, expected, low, high) in zip(pairwise(edges), told, strict=True)
    )
    label = f"{text(curve.name)}; left and right arrow keys read it out"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" tabindex="0" aria-label="{label}">{grid}'
        f'<path class="band s0" d="M{upper}L{lower}Z"/><path class="axis" d="M{_LEFT + 4} {_BOTTOM}H{_RIGHT - 4}"/>'
        f'<path class="line s0" d="M{line}"/>{areas}</svg>'
    )


def _anchor(part: float) -> str:
    return "end" if part == 1 else "middle"
