"""Auto grouping: which images belong together, by brightness, color and blur, or by what they show.

In: samples and where they lie. Out: a `Grouping`: a group number for each sample, and what sets each group apart, in
words. Groups are numbered from 1 in an order that owes nothing to chance: by their words when dimensions were chosen
(dark before bright), by size, the largest first, when grouped by content. Knows nothing of requests, or of where
results are written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.dataset import Dataset
from engine.embeddings import Encoder, content_vectors, load_encoder, neighbour_embedding
from engine.errors import UsageError
from engine.features import IMAGE_FEATURES
from engine.images import MAX_PIXELS
from engine.kmeans import Clusters, kmeans
from engine.samples import Sample
from engine.sources import Sources
from engine.survey import Survey, survey

#: The group of samples that are in none.
UNGROUPED: Final = 0
LEAST_CLUSTERS: Final = 2
MOST_CLUSTERS: Final = 200

#: Without n_clusters, the number of groups is that among CHOICES with the best mean silhouette (Rousseeuw 1987), taken
#: on at most SILHOUETTE_SAMPLE images, since it compares every pair; the smallest of equals.
CHOICES: Final = range(2, 21)
SILHOUETTE_SAMPLE: Final = 2_000
_FEWER_RESTARTS: Final = 5  # a number of groups is tried with a fifth of the restarts

#: The sample attribute that `annotate` writes to, unless told otherwise.
PROPERTY: Final = "group"

#: The flags of SmartTaskConfig, and the feature that each groups by.
DIMENSIONS: Final[dict[str, str]] = {
    "image_brightness": "brightness",
    "image_colorfulness": "colorfulness",
    "ambiguity": "ambiguity",
}

#: How the values of a feature become comparable: skewed ones by their logarithm. Colorfulness reaches 0 and below 15
#: there is "no" color (Hasler and Suesstrunk 2003, table 2), so that differences among the first ten levels count less.
#: Of a blur above 5 pixels the Laplacian keeps less than rounding puts in: larger values only say that it is large.
_SCALES: Final[dict[str, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]]] = {
    "brightness": lambda values: values,
    "colorfulness": lambda values: np.log1p(values / 10.0),
    "ambiguity": lambda values: np.log(np.minimum(values, 5.0)),
    "aspect_ratio": np.log,
    "resolution": np.log,
}

#: How a group is called whose median of a feature lies below or above the rest.
WORDS: Final[dict[str, tuple[str, str]]] = {
    "brightness": ("dark", "bright"),
    "colorfulness": ("grey", "vivid"),
    "ambiguity": ("sharp", "blurred"),
    "aspect_ratio": ("tall", "wide"),
    "resolution": ("small", "large"),
}
#: In robust standard deviations of all images: the middle third of a normal distribution has no word, the outer 7 % on
#: each side have "very".
_WORD_FROM: Final = 0.43
_VERY_FROM: Final = 1.5
_NO_WORDS: Final = "average"

#: Outliers count as this many robust standard deviations, so that a few odd images cannot take a group from many.
_CLIP: Final = 3.0
_NORMAL_IQR: Final = 1.349  # interquartile range of a normal distribution, in standard deviations

#: Coordinates of content: `neighbour_embedding` asks for as many as groups, or more.
_LEAST_COORDINATES: Final = 32
#: Images a group, on average, below which there is no neighbourhood to speak of: contents are compared directly.
_LEAST_A_GROUP: Final = 5
_BATCH: Final = 256

_Positions = npt.NDArray[np.int64]
_Stage = Callable[[str, int], Callable[[int], None]]


@dataclass(frozen=True, slots=True)
class Group:
    """One group. number: from 1. name: what sets it apart. members: positions of its samples, (size,) int64, the most
    typical (nearest to the centre) first. medians: of each of IMAGE_FEATURES. deviations: what the name was made of,
    the median of a feature in robust standard deviations from that of all grouped images."""

    number: int
    name: str
    members: _Positions
    medians: dict[str, float]
    deviations: dict[str, float]

    @property
    def size(self) -> int:
        return len(self.members)


@dataclass(frozen=True, slots=True)
class Grouping:
    """Groups of n samples.

    group: (n,) int64, the number of each sample's group, or UNGROUPED. dimensions: the features that were grouped by;
    none: content. survey: what the pass over the images found, its failures too. silhouettes: of each number of groups
    that was tried, when the number was not given. notes: what a person should know, a line each.
    """

    group: _Positions
    groups: tuple[Group, ...]
    dimensions: tuple[str, ...]
    survey: Survey
    silhouettes: dict[int, float]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.group)


def group(
    samples: Dataset | Sequence[Sample],
    n_clusters: int | None = None,
    *,
    image_brightness: bool = False,
    image_colorfulness: bool = False,
    ambiguity: bool = False,
    all: bool = False,
    encoder: Encoder | None = None,
    restarts: int = 10,
    seed: int = 0,
    threads: int | None = None,
    device: torch.device | None = None,
    max_pixels: int = MAX_PIXELS,
    folder: Path | None = None,
    stage: _Stage = lambda name, total: lambda done: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Grouping:
    """Group the unlabeled images (with `all`, labeled ones too) by k-means (CreateTask, auto grouping).

    n_clusters: 2..200, at most the number of images; None lets the silhouette choose among 2..20. The three flags are
    the dimensions, which combine; none of them: by content, as `encoder` (our own by default) sees it. folder: keeps
    what the pass over the images has found, for the next call; None: a temporary one. stage: called with the name and
    the number of images of each stage, gives what to call with the number done. Same samples, seed and machine: same
    groups.

    Raises UsageError when n_clusters is out of range or there are too few images; Stopped once `stopped()` says so.
    """
    _check_n_clusters(n_clusters)
    flags = {"image_brightness": image_brightness, "image_colorfulness": image_colorfulness, "ambiguity": ambiguity}
    dimensions = tuple(DIMENSIONS[flag] for flag, chosen in flags.items() if chosen)
    encoder = encoder or load_encoder()
    wanted = np.array([sample.is_image and (all or not sample.labels) for sample in samples], bool)
    _check_enough(n_clusters, int(wanted.sum()), "unlabeled images" if not all else "images", wanted)

    with tempfile.TemporaryDirectory() as temporary:
        found = survey(
            samples,
            samples.sources if isinstance(samples, Dataset) else Sources(Path()),
            folder=folder or Path(temporary),
            thumbnail_side=None if dimensions else encoder.size,
            threads=threads,
            max_pixels=max_pixels,
            progress=stage("reading images", sum(sample.is_image for sample in samples)),
            stopped=stopped,
        )
        members = np.flatnonzero(wanted & found.readable)
        _check_enough(n_clusters, len(members), "images that can be read", wanted)
        generator = torch.Generator().manual_seed(seed)
        if dimensions:
            vectors = torch.from_numpy(np.stack([_scaled(found, name, members) for name in dimensions], 1)).float()
        else:
            vectors = _content(found, members, encoder, n_clusters, device, generator, stage)

    progress = stage("grouping", len(members))
    vectors = vectors.to(device) if device else vectors
    clusters, silhouettes = _clustered(vectors, n_clusters, restarts, generator)
    groups = _groups(found, members, clusters, dimensions)
    progress(len(members))
    numbers = np.full(len(samples), UNGROUPED, np.int64)
    for each in groups:
        numbers[each.members] = each.number
    notes = _notes(n_clusters, clusters, len(groups), silhouettes, len(samples) - int(wanted.sum()))
    return Grouping(numbers, groups, dimensions, found, silhouettes, notes)


def annotate(samples: Sequence[Sample], grouping: Grouping, *, property: str = PROPERTY) -> tuple[Sample, ...]:
    """The samples with the number of their group, as a string, in the sample attribute `property`.

    Samples in no group stay as they are. Raises UsageError for an attribute that the service itself uses.
    """
    check_property(property)
    assert len(samples) == len(grouping)
    return tuple(
        replace(sample, property={**sample.property, property: str(number)}) if number else sample
        for sample, number in zip(samples, grouping.group.tolist(), strict=True)
    )


def check_property(name: str) -> None:
    """Raise UsageError when `name` cannot be a sample attribute of a user."""
    if not name or name.startswith("@"):
        raise UsageError(f"property: must be a name that does not begin with @, got {name!r}")


def _check_n_clusters(n_clusters: int | None) -> None:
    if n_clusters is None:
        return
    whole = isinstance(n_clusters, int) and not isinstance(n_clusters, bool)
    if not whole or not LEAST_CLUSTERS <= n_clusters <= MOST_CLUSTERS:
        raise UsageError(f"n_clusters: must be {LEAST_CLUSTERS}..{MOST_CLUSTERS}, got {n_clusters!r}")


def _check_enough(n_clusters: int | None, count: int, what: str, wanted: npt.NDArray[np.bool_]) -> None:
    least = n_clusters or LEAST_CLUSTERS
    if count >= least:
        return
    left_out = len(wanted) - int(wanted.sum())
    hint = f" ({left_out:,} labeled or other samples were left out)" if left_out else ""
    if n_clusters is None:
        raise UsageError(f"grouping needs at least {least} {what}, got {count:,}{hint}")
    raise UsageError(f"n_clusters: must be at most the number of {what}, got {n_clusters} for {count:,}{hint}")


# ---- What is grouped: points, one an image. ----


def _scaled(found: Survey, name: str, members: _Positions) -> npt.NDArray[np.float64]:
    """A feature of the members in robust standard deviations from their median, outliers clipped: (m,)."""
    values = _SCALES[name](found.column(name)[members].astype(np.float64))
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    spread = (high - low) / _NORMAL_IQR or values.std()  # more than half of them may be equal
    centred = values - middle
    return np.clip(centred / spread, -_CLIP, _CLIP) if spread > 0 else np.zeros_like(values)


def _content(
    found: Survey,
    members: _Positions,
    encoder: Encoder,
    n_clusters: int | None,
    device: torch.device | None,
    generator: torch.Generator,
    stage: _Stage,
) -> Tensor:
    """What the members show, as points that lie near when their images are alike: (m, coordinates) float32."""
    assert found.thumbnails is not None
    thumbnails, rows = found.thumbnails, np.searchsorted(found.thumbnails.index, members)

    def batches() -> Iterator[Tensor]:
        return (thumbnails.rows(rows[start : start + _BATCH]) for start in range(0, len(rows), _BATCH))

    progress = stage("looking at contents", len(members))
    vectors = content_vectors(batches, encoder=encoder, device=device, progress=progress)
    if len(members) < _LEAST_A_GROUP * (n_clusters or LEAST_CLUSTERS):
        return vectors
    progress = stage("finding neighbours", len(members))
    vectors = vectors.to(device) if device else vectors
    placed = neighbour_embedding(vectors, dim=max(_LEAST_COORDINATES, n_clusters or 0), generator=generator)
    progress(len(members))
    return placed


# ---- The groups themselves. ----


def _clustered(
    vectors: Tensor, n_clusters: int | None, restarts: int, generator: torch.Generator
) -> tuple[Clusters, dict[int, float]]:
    """The clusters, and the silhouettes that chose their number when it was not given."""
    silhouettes: dict[int, float] = {}
    if n_clusters is None:
        silhouettes = _silhouettes(vectors, max(1, restarts // _FEWER_RESTARTS), generator)
        n_clusters = max(silhouettes, key=lambda k: silhouettes[k], default=LEAST_CLUSTERS)
    return kmeans(vectors, n_clusters, generator=generator, restarts=restarts), silhouettes


def _silhouettes(vectors: Tensor, restarts: int, generator: torch.Generator) -> dict[int, float]:
    """The mean silhouette of each number of groups among CHOICES that is below the number of points."""
    from sklearn.metrics import silhouette_score  # 0.7 s, and seldom wanted

    drawn = torch.randperm(len(vectors), generator=generator)[:SILHOUETTE_SAMPLE].sort().values
    sample = vectors.cpu()[drawn].numpy()
    found: dict[int, float] = {}
    for k in CHOICES:
        if k < len(vectors):
            labels = kmeans(vectors, k, generator=generator, restarts=restarts).assignment.cpu()[drawn].numpy()
            apart = 1 < len(np.unique(labels)) < len(labels)
            found[k] = float(silhouette_score(sample, labels)) if apart else -1.0
    return found


def _groups(found: Survey, members: _Positions, clusters: Clusters, dimensions: Sequence[str]) -> tuple[Group, ...]:
    """The clusters that have members, named, ordered and numbered."""
    assignment, distances = clusters.assignment.cpu().numpy(), clusters.distances.cpu().numpy()
    told = {name: _scaled(found, name, members) for name in dimensions or WORDS}
    groups = []
    for cluster in range(len(clusters.centers)):
        inside = np.flatnonzero(assignment == cluster)
        if len(inside):
            positions = members[inside[np.argsort(distances[inside], kind="stable")]]
            deviations = {name: float(np.median(values[inside])) for name, values in told.items()}
            medians = {name: float(np.median(found.column(name)[positions])) for name in IMAGE_FEATURES}
            groups.append(Group(0, _name(deviations), positions, medians, deviations))
    ordered = sorted(groups, key=_by_words if dimensions else _by_size)
    return tuple(replace(each, number=number) for number, each in enumerate(ordered, start=1))


def _name(deviations: dict[str, float]) -> str:
    """`very dark, vivid`: a word for each feature whose median lies off the middle."""
    return ", ".join(word for name, value in deviations.items() if (word := _word(name, _level(value)))) or _NO_WORDS


def _word(feature: str, level: int) -> str:
    low, high = WORDS[feature]
    return ("", high, f"very {high}", f"very {low}", low)[level]


def _level(deviations: float) -> int:
    """-2 and 2: very, -1 and 1: a word, 0: none."""
    size = 2 if abs(deviations) >= _VERY_FROM else 1 if abs(deviations) >= _WORD_FROM else 0
    return size if deviations > 0 else -size


def _by_words(each: Group) -> tuple[float, ...]:
    return (*map(_level, each.deviations.values()), *each.deviations.values(), int(each.members.min()))


def _by_size(each: Group) -> tuple[float, ...]:
    return -each.size, int(each.members.min())


def _notes(
    n_clusters: int | None, clusters: Clusters, groups: int, silhouettes: dict[int, float], left_out: int
) -> tuple[str, ...]:
    notes = []
    if left_out:
        notes.append(f"{left_out:,} samples were left out of the grouping: labeled already, or no image (all: images)")
    if silhouettes:
        best = max(silhouettes.values())
        notes.append(
            f"n_clusters was not given: {len(clusters.centers)} of {min(silhouettes)}..{max(silhouettes)} has the best "
            f"mean silhouette, {best:.2f} (1: groups far apart, 0: no groups)"
        )
    if groups < len(clusters.centers):
        notes.append(f"{groups} groups instead of {len(clusters.centers)}: the images do not differ in more ways")
    if not clusters.converged:
        notes.append(f"the clustering was still changing after {clusters.iterations} iterations")
    return tuple(notes)
