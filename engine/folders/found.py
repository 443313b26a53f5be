"""What reading a folder gives, in any format: samples in the order of the listing, failures, and notes in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.errors import Failure
from engine.samples import Sample


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder holds, read in one format."""

    samples: tuple[Sample, ...]
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()


def unused(files: Mapping[str, str], used: set[str], ending: str) -> tuple[str, ...]:
    """A note on the files that are not among those used, where there are any."""
    left = sorted(set(files.values()) - used)
    return (f"{len(left):,} {ending} files belong to no image, such as {left[0]}",) if left else ()
