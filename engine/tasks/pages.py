"""What a finished task shows a person: a `Grouping`, or the features of several data sets, as a `report.Page`.

Only the images that are shown are read again, in parallel. Knows nothing of where the page is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.dataset import Dataset
from engine.errors import Failure, ImageError
from engine.features import BOX_FEATURES, IMAGE_FEATURES, Feature
from engine.grouping import Group, Grouping
from engine.images import Pixels, decode_picture, stream
from engine.report import Card, Histogram, Page, Table, Tile, histogram, thumbnail, tiles_per_card
from engine.survey import BOX_COLUMNS, Survey

#: Failures that the page lists; task.json has all.
_LISTED: Final = 100

#: What a card and a caption tell, with its unit and its digits.
_TOLD: Final = {"brightness": ("", 2), "colorfulness": ("", 0), "ambiguity": (" px", 1)}
_FACTS: Final = {"brightness": "brightness", "colorfulness": "colorfulness", "ambiguity": "blur"}


def grouping_page(
    dataset: Dataset,
    grouping: Grouping,
    *,
    notes: Sequence[str],
    threads: int,
    begin: Callable[[int], Callable[[int], None]] = lambda total: lambda done: None,
) -> Page:
    """Every group with its most typical and its most unusual images, histograms, and what could not be read.

    begin: told how many images will be read again, gives what to call with the number read.
    """
    typical, unusual = tiles_per_card(len(grouping.groups))
    shown = {group.number: _chosen(group, typical, unusual) for group in grouping.groups}
    positions = list(chain.from_iterable(chain(*pair) for pair in shown.values()))
    captions = [_caption(grouping, position) for position in positions]
    tiles = dict(zip(positions, tiles_of(dataset, positions, captions, threads, begin(len(positions))), strict=True))
    grouped = sum(group.size for group in grouping.groups)
    cards = tuple(
        Card(
            number=group.number,
            name=group.name,
            size=group.size,
            share=group.size / grouped,
            facts=tuple((name, _told(feature, group.medians[feature])) for feature, name in _FACTS.items()),
            typical=tuple(tiles[i] for i in shown[group.number][0]),
            unusual=tuple(tiles[i] for i in shown[group.number][1]),
        )
        for group in grouping.groups
    )
    by = ", ".join(_FACTS[name] for name in grouping.dimensions) if grouping.dimensions else "content"
    failures = (*dataset.failures, *grouping.survey.failures)
    return Page(
        title=f"{dataset.name}: {len(cards)} groups",
        subtitle=f"Images grouped by {by}. Words and numbers compare the middle of each group with all images.",
        facts=(("images grouped", f"{grouped:,}"), ("groups", f"{len(cards):,}"), ("unreadable", f"{len(failures):,}")),
        notes=tuple(notes),
        cards=cards,
        histograms=_histograms([(dataset.name, grouping.survey)]),
        tables=failure_tables([(dataset.name, failures)]),
    )


def features_page(versions: Sequence[tuple[str, Dataset, Survey]], *, notes: Sequence[str]) -> Page:
    """The features of one data set, or of several versions side by side: the same charts, then the numbers."""
    surveys = [(name, found) for name, _, found in versions]
    images = sum(int(found.readable.sum()) for _, found in surveys)
    unread = [(name, (*dataset.failures, *found.failures)) for name, dataset, found in versions]
    return Page(
        title="Features of " + ", ".join(name for name, _ in surveys),
        subtitle="How the images are distributed, one color a version" if len(surveys) > 1 else "",
        facts=(("images", f"{images:,}"), ("unreadable", f"{sum(len(failed) for _, failed in unread):,}")),
        notes=tuple(notes),
        histograms=_histograms(surveys),
        tables=(_summary(surveys), *failure_tables(unread)),
    )


def _chosen(group: Group, typical: int, unusual: int) -> tuple[list[int], list[int]]:
    """Positions of the samples nearest to the centre, and of the farthest, the farthest first."""
    members = group.members.tolist()
    return members[:typical], members[typical:][::-1][:unusual]


def _caption(grouping: Grouping, position: int) -> str:
    """What the image was grouped by."""
    return ", ".join(_told(name, float(grouping.survey.column(name)[position])) for name in grouping.dimensions)


def tiles_of(
    dataset: Dataset,
    positions: Sequence[int],
    captions: Sequence[str],
    threads: int,
    progress: Callable[[int], None],
    *,
    draw: Callable[[int, Pixels, float], Pixels] | None = None,
) -> list[Tile]:
    """Tiles of the samples at these positions: each file is read again, in `threads` threads. draw: draws on the
    picture of the sample at a position, which has so many pixels for one of the image."""
    placed = {at: path for at, position in enumerate(positions) if (path := _path(dataset, position)) is not None}
    read = list(placed)
    images: dict[int, bytes] = {}

    def work(at: int, content: bytes) -> bytes:
        picture = decode_picture(content)
        if draw is None:
            return thumbnail(picture.rgb)
        return thumbnail(draw(positions[read[at]], picture.rgb, picture.rgb.shape[1] / picture.width))

    done = 0
    for batch in stream(list(placed.values()), work, threads=threads):
        for at, image in zip(read[done:], batch, strict=False):
            if not isinstance(image, ImageError):
                images[at] = image
        done += len(batch)
        progress(done)
    names = [placed[at].name if at in placed else dataset[row].source for at, row in enumerate(positions)]
    return [Tile(images.get(at), name, caption) for at, (name, caption) in enumerate(zip(names, captions, strict=True))]


def _path(dataset: Dataset, position: int) -> Path | None:
    """Where an image lies; None for a source that is not on this machine."""
    with suppress(ImageError):
        return dataset.path(dataset[position])
    return None


def _told(feature: str, value: float) -> str:
    unit, digits = _TOLD[feature]
    return f"{value:.{digits}f}{unit}"


def _histograms(surveys: Sequence[tuple[str, Survey]]) -> tuple[Histogram, ...]:
    charts = [
        _chart(name, feature, [(version, found.column(name)[found.readable]) for version, found in surveys])
        for name, feature in IMAGE_FEATURES.items()
    ]
    if any(len(boxes) for _, found in surveys for boxes in found.boxes):
        charts += [
            _chart(name, feature, [(version, _box_values(name, found)) for version, found in surveys], things=things)
            for name, feature in BOX_FEATURES.items()
            for things in ["images" if name in _OF_IMAGES else "boxes"]
        ]
    return tuple(charts)


_OF_IMAGES: Final = ("box_count", "box_area_std")


def _chart(
    name: str, feature: Feature, series: Sequence[tuple[str, npt.NDArray[np.float32]]], things: str = "images"
) -> Histogram:
    return histogram(series, name=name, meaning=feature.meaning, unit=feature.unit, log=feature.log, things=things)


def _box_values(name: str, found: Survey) -> npt.NDArray[np.float32]:
    """A box feature: one value a box, or an image that has boxes."""
    counts = np.array([len(boxes) for boxes in found.boxes])
    if name == "box_count":
        return counts[found.readable].astype(np.float32)
    if name == "box_area_std":
        return found.box_area_std[counts > 0]
    return np.concatenate(found.boxes)[:, BOX_COLUMNS.index(name.removeprefix("box_"))]


def _summary(surveys: Sequence[tuple[str, Survey]]) -> Table:
    rows = []
    for name, feature in IMAGE_FEATURES.items():
        for version, found in surveys:
            values = found.column(name)[found.readable]
            quantiles = np.quantile(values, [0.05, 0.5, 0.95]) if len(values) else [np.nan] * 3
            rows.append((name, version, *(f"{value:,.4g}" for value in quantiles), feature.unit))
    header = ("feature", "version", "5 %", "median", "95 %", "unit")
    return Table("Numbers", header, tuple(rows), note="Percentiles over the readable images")


def failure_tables(failed: Sequence[tuple[str, Iterable[Failure]]]) -> tuple[Table, ...]:
    """What could not be read, of each version by name: one table, or none."""
    rows = [(version, each.source, each.kind, each.reason) for version, failures in failed for each in failures]
    if not rows:
        return ()
    if len(failed) == 1:
        table = Table(
            "Unreadable", ("source", "kind", "reason"), tuple(row[1:] for row in rows[:_LISTED]), total=len(rows)
        )
    else:
        table = Table("Unreadable", ("version", "source", "kind", "reason"), tuple(rows[:_LISTED]), total=len(rows))
    return (table,)
