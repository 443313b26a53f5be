"""Why an image is hard, on a page: reasons with their shares, training images like it, a filter, and a selection to
take away as a manifest.

The page carries all that in data attributes; why.js shows it beside the picture and filters galleries.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from engine.report.markup import text


@dataclass(frozen=True, slots=True)
class Example:
    """A picture that others are compared with: JPEG bytes, and what a person says of it."""

    image: bytes
    label: str


@dataclass(frozen=True, slots=True)
class Why:
    """Why one image is hard.

    coefficient: in [0, 1], in words by `told`, as `43 % likely wrong`. reasons: (number, share in [0, 1]), by share.
    labels: by which the image is found. near: positions of the page's examples that are like it. line: the image in a
    manifest, JSON. Raises ValueError for a share out of range.
    """

    told: str
    reasons: tuple[tuple[int, float], ...]
    labels: tuple[str, ...]
    near: tuple[int, ...] = ()
    line: str = ""

    def __post_init__(self) -> None:
        for number, share in self.reasons:
            if not 0 <= share <= 1:
                raise ValueError(f"reason {number}: share must be in [0, 1], got {share}")


def check_whys(whys: Iterable[Why], words: Mapping[int, str], examples: int) -> None:
    """Raise ValueError unless every reason has words, and every example is there."""
    for why in whys:
        missing = [number for number, _ in why.reasons if number not in words]
        if missing:
            raise ValueError(f"reason {missing[0]}: must have words on the page")
        if any(not 0 <= at < examples for at in why.near):
            raise ValueError(f"examples must be 0..{examples - 1}, got {why.near}")


def why_data(why: Why) -> str:
    """The attributes of a tile."""
    said = {
        "told": why.told,
        "reasons": [[number, round(share, 3)] for number, share in why.reasons],
        "labels": why.labels,
        "near": why.near,
    }
    line = f' data-line="{html.escape(why.line, quote=True)}"' if why.line else ""
    return f' data-why="{_json(said)}"{line}'


def examples_html(examples: Iterable[Example], words: Mapping[int, str], pictures: Iterable[str]) -> str:
    """What the script takes pictures and words from; not seen itself. pictures: the examples as <img>."""
    items = "".join(
        f"<figure>{picture}<figcaption>{text(example.label)}</figcaption></figure>"
        for picture, example in zip(pictures, examples, strict=True)
    )
    return (
        f'<div id="examples" data-words="{_json({str(at): each for at, each in words.items()})}" hidden>{items}</div>'
    )


#: Beside the picture in the viewer.
PANEL: Final = """<section id="why" aria-label="Why it is hard" hidden><p id="why-told"></p><ul id="why-reasons"></ul>
<div id="why-near" aria-label="Training images like it"></div></section>
"""


def _json(value: Any) -> str:
    return html.escape(json.dumps(value, separators=(",", ":")), quote=True)
