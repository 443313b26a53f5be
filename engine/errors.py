"""What can go wrong, and how it is said.

One tree of exceptions for everything the engine reports on purpose: a message is one line that names the place, what
was expected and what was found; a request with several problems has a line for each. One record, `Failure`, for what
goes wrong with a single input while the run goes on.
"""

from __future__ import annotations

from dataclasses import dataclass


class EngineError(Exception):
    """Anything that the engine reports on purpose; the message is one line for a person."""


class UsageError(EngineError):
    """The request cannot be meant: a wrong option, a wrong combination, an unknown field."""


class InputError(EngineError):
    """What was read is not what it should be: a data set, a manifest line, an annotation file."""


class ManifestError(InputError):
    """A line of a manifest cannot be understood."""


class VocError(InputError):
    """A PASCAL VOC file cannot be understood."""


class ImageError(InputError):
    """An image cannot be read; `kind` is one of `FAILURE_KINDS`."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return ImageError, (self.kind, str(self))  # it travels between processes


class OutputError(EngineError):
    """A result cannot be written, or would overwrite something that is not ours to overwrite."""


class MissingExtraError(EngineError):
    """A feature needs a package that is not installed; the message names the extra to install."""


class Stopped(EngineError):
    """The run was asked to stop and did so cleanly."""


FAILURE_KINDS = (
    "missing",  # there is nothing at the place that the source names
    "empty",  # zero bytes
    "not_a_file",  # a directory, a device, ...
    "unreadable",  # the operating system refused
    "not_an_image",  # bytes that no decoder knows
    "broken",  # begins like an image, then fails (truncated, damaged)
    "too_large",  # above the limit of pixels
    "remote",  # a URI that this machine cannot open (no prefix map for it)
    "annotation",  # the image may be fine, its annotation file is not
)


@dataclass(frozen=True, slots=True)
class Failure:
    """One input that could not be used; the run went on without it.

    source: as the data set names it. kind: one of `FAILURE_KINDS`. reason: one line for a person.
    """

    source: str
    kind: str
    reason: str

    def __post_init__(self) -> None:
        assert self.kind in FAILURE_KINDS, self.kind
