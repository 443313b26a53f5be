"""Key samples: copies of the samples that a person should look at, with a manifest of them, in a folder below OUT."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from engine.dataset import Dataset, with_files
from engine.errors import Failure, ImageError
from engine.exports import Tally
from engine.manifest import write_manifest
from engine.tasks.further import below_out
from engine.tasks.grouping import placed
from engine.tasks.runner import Run

KEY_SAMPLES: Final = "key_samples"
KEY_MANIFEST: Final = "key_samples.manifest"
COPYING: Final = "copying key samples"
#: Without confidence_scope: of any confidence.
DEFAULT_SCOPE: Final = (0.0, 1.0)


def key_folder(output: str | None) -> str:
    """The folder below OUT. Raises UsageError for a place elsewhere: nothing is written outside OUT."""
    return below_out("config.key_sample_output", output or KEY_SAMPLES)


def within(confidences: npt.NDArray[np.float32], scope: tuple[float, float]) -> npt.NDArray[np.bool_]:
    """(n,) confidences that lie in scope, ends included; unknown ones (NaN) lie in none but the whole."""
    low, high = scope
    with np.errstate(invalid="ignore"):
        inside = (confidences >= low) & (confidences <= high)
    return np.logical_or(inside, np.isnan(confidences)) if scope == DEFAULT_SCOPE else np.asarray(inside)


def copy_key_samples(
    this: Run, dataset: Dataset, rows: npt.NDArray[np.int64], folder: str, failures: list[Failure]
) -> int:
    """Copies of the images at these rows, and a manifest of them with their labels, in this order; gives how many were
    copied. failures: known ones; those of copying that are new are added."""
    advance = this.stage(COPYING, len(rows))
    tally = Tally()
    copies = []
    this.out.claim(f"{folder}/{KEY_MANIFEST}")
    for done, row in enumerate(rows.tolist(), start=1):
        try:
            copy = placed(dataset[row], dataset.sources, this.out, folder, copy=True)
            copies.append(with_files(copy, dataset[row].source, this.out, tally, folder=folder))
        except ImageError as error:  # it was there a minute ago
            tally.failures.append(Failure(dataset[row].source, error.kind, str(error)))
        if done % 1000 == 0:
            advance(done)
    write_manifest(this.out.target(f"{folder}/{KEY_MANIFEST}"), copies)
    advance(len(rows))
    known = set(failures)
    failures += [each for each in tally.failures if each not in known]
    return len(copies)
