"""What people have said about the samples, as numbers: the classes, and who belongs to which.

In: samples. Out: `Targets`, parallel to them. Only labels of image classification that a person gave count; those of
machines are there to be replaced. Knows nothing of pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.errors import InputError, UsageError
from engine.samples import IMAGE_CLASSIFICATION, UNLABELED, Sample

#: Rules of the specification: so many labels, each on so many images, and something left to label (task API).
LEAST_LABELS: Final = 2
LEAST_PER_CLASS: Final = 5


@dataclass(frozen=True, slots=True)
class Targets:
    """The classes of n samples.

    labels: the k class names, sorted. matrix: (n, k) bool, what a person said; all False where nobody said anything.
    multi_label: whether a sample may have several labels (some sample has).
    """

    labels: tuple[str, ...]
    matrix: npt.NDArray[np.bool_]
    multi_label: bool

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def labeled(self) -> npt.NDArray[np.bool_]:
        """(n,) True where a person gave a label."""
        found: npt.NDArray[np.bool_] = np.any(self.matrix, axis=1)
        return found

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """(n,) the class of each sample, UNLABELED (-1) where there is none. Only for a set with one label a sample."""
        assert not self.multi_label
        chosen: npt.NDArray[np.int64] = np.where(self.labeled, self.matrix.argmax(axis=1), UNLABELED)
        return chosen

    def only(self, usable: npt.NDArray[np.bool_]) -> Targets:
        """The same targets, with the samples that are not usable (n,) counted as unlabeled."""
        return Targets(self.labels, np.logical_and(self.matrix, usable[:, None]), self.multi_label)


def human_labels(sample: Sample) -> tuple[str, ...]:
    """The different image labels that people gave a sample, in their order."""
    names = (label.name for label in sample.labels if label.type == IMAGE_CLASSIFICATION and label.by_human)
    return tuple(dict.fromkeys(name for name in names if name))


def targets_of(samples: Sequence[Sample]) -> Targets:
    """The targets of image samples: every label that a person gave is a class."""
    given = [human_labels(sample) if sample.is_image else () for sample in samples]
    labels = tuple(sorted({name for names in given for name in names}))
    column = {name: at for at, name in enumerate(labels)}
    matrix = np.zeros((len(samples), len(labels)), bool)
    for row, names in enumerate(given):
        matrix[row, [column[name] for name in names]] = True
    return Targets(labels, matrix, any(len(names) > 1 for names in given))


def check_rules(
    targets: Targets, unlabeled: int, *, min_per_class: int = LEAST_PER_CLASS, least_unlabeled: int = 1
) -> None:
    """Raise InputError unless auto labeling may begin: the rules of the specification, one line each.

    targets: of the samples whose images can be read. unlabeled: how many readable images nobody labeled.
    """
    counts = dict(zip(targets.labels, targets.matrix.sum(axis=0).tolist(), strict=True))
    problems = []
    if len(counts) < LEAST_LABELS:
        got = f"only {next(iter(counts))!r}" if counts else "no labeled image"
        problems.append(f"auto labeling needs at least {LEAST_LABELS} labels that people gave, got {got}")
    problems += common_problems(counts, unlabeled, min_per_class, least_unlabeled)
    if problems:
        raise InputError("\n".join(problems))


def common_problems(
    counts: Mapping[str, int], unlabeled: int, min_per_class: int, least_unlabeled: int
) -> Iterator[str]:
    """The rules that labels of images and boxes share, a line for each that is not kept. counts: images of each
    label."""
    if min_per_class < 2:
        raise UsageError(f"min_per_class: must be at least 2, got {min_per_class}")
    few = sorted((name, count) for name, count in counts.items() if count < min_per_class)
    if few:
        listed = ", ".join(f"{name!r} on {count}" for name, count in few[:5])
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        yield (
            f"auto labeling needs every label on at least {min_per_class} readable images (min_per_class lowers it), "
            f"got {listed}{more}"
        )
    if unlabeled < least_unlabeled:
        yield "auto labeling needs at least 1 unlabeled image that can be read, got none: nothing to label"
