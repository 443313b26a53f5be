"""Histograms: values -> shared bins -> inline SVG, drawn so that several versions of a data set can be compared.

A `Histogram` holds counts, not values. Its outer edges may be infinite: such a bin gathers what lies beyond the
readable range and is drawn apart from the others. SVG coordinates are CSS pixels; colors come from the style sheet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.report.markup import count, number, percent, text

#: What is drawn between the axes: the middle 99 %, unless the rest is near.
TAIL: Final = 0.005
#: A tail is cut off only when showing it would stretch the axis by more than this part of the range.
NEAR: Final = 0.25
LEAST_BINS: Final = 8
MOST_BINS: Final = 40
COLORS: Final = 4  # series colors in the style sheet; a fifth series is the first color, dashed

_WIDTH: Final = 380
_HEIGHT: Final = 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 372, 10, 164
_BEYOND: Final = 16  # width of a bin that gathers what lies beyond, and
_GAP: Final = 6  # its distance from the axis
_LETTER: Final = 6.5  # width of a digit of the tick labels


_Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often each range of values occurs, in one or several data sets that share their bins.

    edges: increasing, bin i is [edges[i], edges[i + 1]), the last one closed; the first may be -inf and the last inf;
    empty when nobody has a value. series: (name, counts), one count a bin. log: bins are drawn on a logarithmic axis
    (all finite edges > 0). whole: the values are whole numbers and finite edges lie halfway between two of them.
    missing: values that are no numbers, one count a series. things: what is counted.
    Raises ValueError when these do not fit together.
    """

    name: str
    meaning: str
    unit: str
    edges: tuple[float, ...]
    series: tuple[tuple[str, tuple[int, ...]], ...]
    log: bool = False
    whole: bool = False
    missing: tuple[int, ...] = ()
    things: str = "images"

    def __post_init__(self) -> None:
        finite = [edge for edge in self.edges if math.isfinite(edge)]
        if any(not low < high for low, high in pairwise(self.edges)) or (self.edges and len(finite) < 2):
            raise ValueError(f"{self.name}: edges must increase, two of them finite, got {self.edges}")
        if self.log and finite and finite[0] <= 0:
            raise ValueError(f"{self.name}: edges of a logarithmic axis must be above 0, got {finite[0]}")
        if self.whole and (self.log or any(edge % 1 != 0.5 for edge in finite)):
            raise ValueError(f"{self.name}: edges of whole numbers must end in .5 on an even axis, got {self.edges}")
        if not self.series:
            raise ValueError(f"{self.name}: a histogram needs at least one series, got none")
        bins = max(0, len(self.edges) - 1)
        for name, counts in self.series:
            if len(counts) != bins:
                raise ValueError(f"{self.name}: {name!r} must have {bins} counts, one a bin, got {len(counts)}")
        if self.missing and len(self.missing) != len(self.series):
            raise ValueError(f"{self.name}: missing must have {len(self.series)} counts, got {len(self.missing)}")


def histogram(
    series: Sequence[tuple[str, npt.NDArray[Any]]],
    *,
    name: str,
    meaning: str = "",
    unit: str = "",
    log: bool = False,
    bins: int | None = None,
    things: str = "images",
) -> Histogram:
    """Counts of each series' values (n,) in bins that all series share.

    The bins cover the middle 99 % of all values, or all of them where the tails are near; one more bin at an end
    gathers what lies beyond. On a logarithmic axis, values <= 0 are beyond the lower end. Whole numbers on an even
    axis get bins of a whole width. NaN and infinities are counted as missing. bins: how many at most; None takes what
    the narrowest series needs (Freedman and Diaconis 1981: bins of 2 IQR n^(-1/3)), from LEAST_BINS to MOST_BINS.
    Raises ValueError for no series, values that are not (n,), or fewer than one bin.
    """
    for label, values in series:
        if np.ndim(values) != 1:
            raise ValueError(f"{name}: values of {label!r} must be (n,), got {np.shape(values)}")
    if bins is not None and bins < 1:
        raise ValueError(f"{name}: bins must be at least 1, got {bins}")
    columns = [np.asarray(values, dtype=np.float64) for _, values in series]
    kept = [values[np.isfinite(values)] for values in columns]
    missing = tuple(len(values) - len(numbers) for values, numbers in zip(columns, kept, strict=True))
    log = log and any(bool((numbers > 0).any()) for numbers in kept)
    whole = not log and all(_are_whole(numbers) for numbers in kept)
    edges = _edges(kept, log=log, whole=whole, bins=bins)
    counts = [tuple(np.histogram(numbers, edges)[0].tolist()) if edges else () for numbers in kept]
    named = tuple((label, counted) for (label, _), counted in zip(series, counts, strict=True))
    return Histogram(name, meaning, unit, edges, named, log=log, whole=whole, missing=missing, things=things)


def _are_whole(values: _Values) -> bool:
    return bool((values == np.round(values)).all()) and bool((np.abs(values) < 2**50).all())


def _edges(series: list[_Values], *, log: bool, whole: bool, bins: int | None) -> tuple[float, ...]:
    """The shared edges, none when there is no value; infinite ones only where values lie beyond the others."""
    everything = np.concatenate(series) if series else np.empty(0)
    scaled = [np.log10(values[values > 0]) if log else values for values in series]
    if not len(everything):
        return ()
    low, high = _readable_range(np.concatenate(scaled))
    if bins is None:
        bins = _bin_count(scaled, high - low)
    if whole:
        low, high = math.floor(low), math.ceil(high)
        if low == high:  # a constant: one bar, with room around it
            low, high = max(low - 2, min(low, 0)), high + 2
        width = math.ceil((high - low + 1) / bins)
        inner = low - 0.5 + width * np.arange(math.ceil((high - low + 1) / width) + 1)
    elif high - low <= 1e-6 * max(abs(low), abs(high)):  # a constant, too; all but equal ones as well
        middle, reach = (low + high) / 2, 0.1 if log else 0.1 * abs(low + high) / 2 or 0.5
        inner = middle + reach * np.linspace(-1, 1, 8)  # 7 bins: one is in the middle
    else:
        inner = np.linspace(low, high, bins + 1)
    if log:
        inner = _without_rounding(np.power(10.0, inner, dtype=np.float64), everything[everything > 0])
    edges = [float(edge) for edge in inner]
    below = [-math.inf] if everything.min() < edges[0] else []
    above = [math.inf] if everything.max() > edges[-1] else []
    return (*below, *edges, *above)


def _without_rounding(edges: _Values, values: _Values) -> _Values:
    """The outer edges moved onto the extremes, where 10^log10(x) has missed x by its last digits."""
    for at, extreme in ((0, float(values.min())), (-1, float(values.max()))):
        if math.isclose(edges[at], extreme, rel_tol=1e-9):
            edges[at] = extreme
    return edges


def _bin_count(series: list[_Values], span: float) -> int:
    quartiles = [(np.quantile(values, [0.25, 0.75]), len(values)) for values in series if len(values)]
    widths = [2 * float(upper - lower) * n ** (-1 / 3) for (lower, upper), n in quartiles]
    narrowest = min((width for width in widths if width > 0), default=0.0)
    return min(MOST_BINS, max(LEAST_BINS, math.ceil(span / narrowest))) if narrowest else MOST_BINS


def _readable_range(values: _Values) -> tuple[float, float]:
    low, high = (float(edge) for edge in np.quantile(values, [TAIL, 1 - TAIL]))
    least, most = float(values.min()), float(values.max())
    near = NEAR * (high - low)
    return least if low - least <= near else low, most if most - high <= near else high


def figure_html(chart: Histogram) -> str:
    """One chart: its name, its meaning, a legend for several series, and a line that reads the bins out."""
    unit = f' <span class="unit">{text(chart.unit)}</span>' if chart.unit else ""
    meaning = f'<p class="meaning">{text(chart.meaning)}</p>' if chart.meaning else ""
    drawing = _svg(chart) if any(sum(counts) for _, counts in chart.series) else '<p class="empty">No values</p>'
    return (
        f'<figure class="chart"><figcaption><h3>{text(chart.name)}{unit}</h3>{meaning}</figcaption>'
        f'{_legend(chart)}{drawing}<p class="readout" aria-live="polite">{_summary(chart)}</p></figure>'
    )


def _legend(chart: Histogram) -> str:
    """A line a series; the script writes its share of the bin that is pointed at into the last cell."""
    if len(chart.series) < 2:
        return ""
    items = (
        f'<li title="{text(name)}"><span class="swatch {_series_class(at)}"></span><bdi>{text(name)}</bdi>'
        f'<span class="value"></span></li>'
        for at, (name, _) in enumerate(chart.series)
    )
    return f'<ul class="legend" aria-live="polite">{"".join(items)}</ul>'


def _series_class(at: int) -> str:
    return f"s{at % COLORS}" + (" dashed" if at // COLORS % 2 else "")


def _summary(chart: Histogram) -> str:
    """What the line says while no bin is pointed at: how many there are, and which are not drawn in their place."""
    parts = [count(sum(sum(counts) for _, counts in chart.series), chart.things)]
    for at in sorted({0, len(chart.edges) - 2}) if chart.edges else ():
        if _is_beyond(chart, at):
            gathered = sum(counts[at] for _, counts in chart.series)
            parts.append(f"{count(gathered)} {'' if at == 0 else 'of '}{_range_words(chart, at)}")
    if sum(chart.missing):
        parts.append(f"{count(sum(chart.missing))} without a value")
    return " · ".join(parts)


def _range_words(chart: Histogram, at: int) -> str:
    low, high = chart.edges[at], chart.edges[at + 1]
    beyond = low if math.isinf(high) else high
    step = (
        chart.edges[at + 2] - high if math.isinf(low) else low - chart.edges[at - 1] if math.isinf(high) else high - low
    )
    if chart.whole:  # the edges lie between the numbers: say the numbers
        low, high, beyond, step = low + 0.5, high - 0.5, beyond + 0.5, 10.0
    if math.isinf(low):
        return f"below {number(beyond, step)}"
    if math.isinf(high):
        return f"{number(beyond, step)} or more"
    return number(low, step) if low == high else f"{number(low, step)} to {number(high, step)}"


def _bin_words(chart: Histogram, at: int) -> str:
    """Lines: the bin's range, then what each series has in it."""
    lines = [_range_words(chart, at)]
    for name, counts in chart.series:
        share = percent(counts[at] / max(1, sum(counts)))
        if len(chart.series) > 1:
            lines.append(f"{text(name)}: {share} ({count(counts[at])})")
        else:
            lines.append(f"{count(counts[at], chart.things)} ({share})")
    return "\n".join(lines)


def _svg(chart: Histogram) -> str:
    bins = _bin_places(chart)
    several = len(chart.series) > 1
    # several data sets differ in size: their shares can be compared, their counts cannot
    heights = [
        tuple(counted / max(1, sum(counts)) for counted in counts) if several else tuple(map(float, counts))
        for _, counts in chart.series
    ]
    steps = _steps(0, max(map(max, heights)), 4, whole=not several)
    top = steps[-1]
    grid = "".join(
        f'<path class="grid" d="M{_LEFT} {_y(step, top):.1f}H{_RIGHT}"/>'
        f'<text class="tick" x="{_LEFT - 6}" y="{_y(step, top) + 4:.1f}" text-anchor="end">'
        f"{_height_label(step, steps, several)}</text>"
        for step in steps
    )
    draw = _outline if several else _bars
    drawn = "".join(draw(at, chart, bins, shares, top) for at, shares in enumerate(heights))
    # each bin answers over the full height; its <title> is what the script reads out
    areas = "".join(
        f'<rect class="bin" x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}" height="{_BOTTOM - _TOP}">'
        f"<title>{_bin_words(chart, at)}</title></rect>"
        for at, (left, right) in enumerate(bins)
    )
    label = f"Histogram of {text(chart.name)}, {len(bins)} bins; left and right arrow keys read them out"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" tabindex="0" aria-label="{label}">'
        f"{grid}{drawn}{_x_axis(chart)}{areas}</svg>"
    )


def _y(value: float, top: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * value / top


def _x_range(chart: Histogram) -> tuple[float, float]:
    """Where the finite bins begin and end; what lies beyond takes its room from them."""
    left = _LEFT + (_BEYOND + _GAP if chart.edges[0] == -math.inf else 4)
    right = _RIGHT - (_BEYOND + _GAP if chart.edges[-1] == math.inf else 4)
    return left, right


def _x_places(chart: Histogram, values: Sequence[float]) -> list[float]:
    finite = [edge for edge in chart.edges if math.isfinite(edge)]
    scale = math.log10 if chart.log else float
    low, high = scale(finite[0]), scale(finite[-1])
    left, right = _x_range(chart)
    return [left + (right - left) * (scale(value) - low) / (high - low) for value in values]


def _bin_places(chart: Histogram) -> list[tuple[float, float]]:
    """(left, right) of each bin."""
    places = list(pairwise(_x_places(chart, [edge for edge in chart.edges if math.isfinite(edge)])))
    below = [(float(_LEFT), float(_LEFT + _BEYOND))] if chart.edges[0] == -math.inf else []
    above = [(float(_RIGHT - _BEYOND), float(_RIGHT))] if chart.edges[-1] == math.inf else []
    return below + places + above


def _is_beyond(chart: Histogram, at: int) -> bool:
    return math.isinf(chart.edges[at]) or math.isinf(chart.edges[at + 1])


def _bars(
    series: int, chart: Histogram, bins: list[tuple[float, float]], heights: tuple[float, ...], top: float
) -> str:
    gap = 0.5 if bins[len(bins) // 2][1] - bins[len(bins) // 2][0] > 4 else 0.0
    # what is there is seen, be it one in a million: at least a pixel
    return "".join(
        f'<rect class="bar {_series_class(series)}{" beyond" if _is_beyond(chart, at) else ""}" x="{left + gap:.1f}" '
        f'y="{min(_y(height, top), _BOTTOM - 1):.1f}" width="{right - left - 2 * gap:.1f}" '
        f'height="{max(1.0, _BOTTOM - _y(height, top)):.1f}"/>'
        for at, ((left, right), height) in enumerate(zip(bins, heights, strict=True))
        if height
    )


def _outline(
    series: int, chart: Histogram, bins: list[tuple[float, float]], heights: tuple[float, ...], top: float
) -> str:
    """Steps around the bins; a bin that gathers what lies beyond stands apart, as its own box."""
    path = []
    for at, ((left, right), height) in enumerate(zip(bins, heights, strict=True)):
        starts = at == 0 or _is_beyond(chart, at) or _is_beyond(chart, at - 1)
        ends = at == len(bins) - 1 or _is_beyond(chart, at) or _is_beyond(chart, at + 1)
        path.append(f"{f'M{left:.1f} {_BOTTOM}' if starts else ''}V{_y(height, top):.1f}H{right:.1f}")
        path.append(f"V{_BOTTOM}" if ends else "")
    return f'<path class="steps {_series_class(series)}" d="{"".join(path)}"/>'


def _x_axis(chart: Histogram) -> str:
    finite = [edge for edge in chart.edges if math.isfinite(edge)]
    ticks = _log_ticks(finite[0], finite[-1]) if chart.log else _linear_ticks(finite[0], finite[-1])
    left, right = _x_range(chart)
    marks = [(_LEFT + _BEYOND / 2, "&lt;")] if chart.edges[0] == -math.inf else []
    ends = [(_RIGHT - _BEYOND / 2, "&gt;")] if chart.edges[-1] == math.inf else []
    free = marks[0][0] + 6 if marks else 0.0
    last = ends[0][0] - 6 if ends else float(_WIDTH)
    for (value, label), place in zip(ticks, _x_places(chart, [value for value, _ in ticks]), strict=True):
        half = _LETTER * len(label) / 2
        if place - half < free or place + half > last or (chart.whole and value % 1):
            continue
        marks.append((place, label))
        free = place + half + 8
    labels = "".join(
        f'<path class="axis" d="M{place:.1f} {_BOTTOM}v4"/>'
        f'<text class="tick" x="{place:.1f}" y="{_BOTTOM + 17}" text-anchor="middle">{label}</text>'
        for place, label in marks + ends
    )
    return f'<path class="axis" d="M{left:.1f} {_BOTTOM}H{right:.1f}"/>{labels}'


def _steps(low: float, high: float, about: int, *, whole: bool = False) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) from at or below low to at or above high."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    step = max(1.0, step) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [at * step for at in range(first, last + 1)]


def _linear_ticks(low: float, high: float) -> list[tuple[float, str]]:
    steps = _steps(low, high, 5)
    return [(step, _tick_label(step, steps[1] - steps[0])) for step in steps if low <= step <= high]


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Powers of ten over three decades and more, 1-2-5 over one, else as on an even axis."""
    decades = math.log10(high / low)
    if decades < 0.8:
        return _linear_ticks(low, high)
    factors = (1,) if decades > 3 else (1, 2, 5)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [factor * 10.0**power for power in powers for factor in factors]
    return [(value, _tick_label(value, value)) for value in values if low <= value <= high]


def _tick_label(value: float, step: float) -> str:
    """As few digits as the step allows: 0.25, 1,500, 20k, 1.5M, 1e−9."""
    size = max(abs(value), step)
    if not 1e-6 <= size < 1e12:
        return f"{value:.3g}".replace("e+", "e").replace("-", "−")
    divisor, suffix = next(
        (
            (unit, name)
            for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k"))
            if abs(value) >= max(unit, 1e4) and step >= unit / 10
        ),
        (1.0, ""),
    )
    decimals = max(0, -math.floor(math.log10(step / divisor) + 1e-9))
    return f"{value / divisor:,.{decimals}f}{suffix}".replace("-", "−")


def _height_label(value: float, steps: list[float], shares: bool) -> str:
    step = steps[1] - steps[0]
    return f"{_tick_label(100 * value, 100 * step)} %" if shares else _tick_label(value, step)
