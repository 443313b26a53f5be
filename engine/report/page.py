"""`Page` -> one HTML file: what is shown, in which order, and how it is marked up.

Functions that end in `_html` return HTML; everything given by a user has gone through `markup.text` by then. The page
loads nothing: a content security policy forbids it every connection and every script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import chain
from statistics import median
from typing import Final

from engine.report.charts import Histogram, figure_html
from engine.report.curve import Curve, curve_html
from engine.report.decisions import PANEL, Decisions, Proposal, bar_html, check_proposals, page_key, proposal_data
from engine.report.markup import count, percent, text
from engine.report.pictures import PIXELATED, jpeg_size
from engine.report.reliability import Reliability, reliability_html
from engine.report.why import PANEL as WHY_PANEL
from engine.report.why import Example, Why, check_whys, examples_html, why_data

#: Rows of a table that are written; the rest is counted.
MOST_ROWS: Final = 100
#: Tiles of a whole page: at about 4 KB each (a photo's thumbnail in base64) they make 10 MB.
MOST_TILES: Final = 2_400
#: From so many cards on, there are controls to find one.
MANY_CARDS: Final = 20

_NUMERIC = re.compile(r"(?:[<>~±+−-]?\s*[\d.,]+(?:e[+-]?\d+)?\s*(?:%|[A-Za-z/µ²]{1,10})?|[–—-]|n/a|nan|)")


@dataclass(frozen=True, slots=True)
class Tile:
    """One image: its picture as JPEG bytes (None: there is none to show), its file name, and a short caption.

    proposal: what a person may decide about it; only a tile with a picture is asked about. why: why it is hard.
    """

    image: bytes | None
    title: str
    caption: str = ""
    proposal: Proposal | None = None
    why: Why | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """One group: a number that no other card has, its name in words, how many it holds, what is known about it.

    share: of all grouped ones, in [0, 1]. facts: (name, value) as they are read. typical, unusual: chosen by the
    caller, best first, no image in both. face: the JPEG that stands for it in the overview, None: that of its first
    tile. Raises ValueError when more is shown than there is.
    """

    number: int
    name: str
    size: int
    share: float
    facts: tuple[tuple[str, str], ...] = ()
    typical: tuple[Tile, ...] = ()
    unusual: tuple[Tile, ...] = ()
    face: bytes | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"card {self.number}: share must be in [0, 1], got {self.share}")
        if self.shown > self.size:
            raise ValueError(f"card {self.number}: shows {self.shown} tiles of a group of {self.size}")

    @property
    def shown(self) -> int:
        return len(self.typical) + len(self.unusual)

    @property
    def tiles(self) -> tuple[Tile, ...]:
        return (*self.typical, *self.unusual)


@dataclass(frozen=True, slots=True)
class Gallery:
    """Tiles under a heading of their own, in the caller's order. note: what they have in common. command: what to run
    then, shown after the note, in one line."""

    heading: str
    tiles: tuple[Tile, ...]
    note: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a header. Columns of numbers are aligned as such, but for the first `words` columns.

    total: how many rows there are, when `rows` is only the beginning; None: these are all. see: where the rest is.
    Raises ValueError when a row is not as wide as the header.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    total: int | None = None
    see: str = "task.json"
    words: int = 0

    def __post_init__(self) -> None:
        for at, row in enumerate(self.rows):
            if len(row) != len(self.header):
                raise ValueError(f"{self.title}: row {at} must have {len(self.header)} cells, got {len(row)}")
        if self.total is not None and self.total < len(self.rows):
            raise ValueError(f"{self.title}: total must be at least {len(self.rows)}, got {self.total}")


@dataclass(frozen=True, slots=True)
class Page:
    """All that a page shows, in this order; what is empty is left out.

    facts: (name, value), the numbers to read first. notes: what a reader must know. things: what the cards count.
    numbered: whether people know a card by its number. decisions: how the tiles' proposals are decided. curve: beside
    the histograms. reasons: what the numbers of the tiles' reasons mean, and examples what their images are like.
    Raises ValueError when two cards have the same number, or a proposal or a reason does not fit.
    """

    title: str
    subtitle: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    cards: tuple[Card, ...] = ()
    histograms: tuple[Histogram, ...] = ()
    reliability: Reliability | None = None
    tables: tuple[Table, ...] = ()
    cards_heading: str = "Groups"
    typical_heading: str = "Most typical"
    unusual_heading: str = "Most unusual"
    histograms_heading: str = "Features"
    things: str = "images"
    numbered: bool = True
    decisions: Decisions | None = None
    curve: Curve | None = None
    reasons: Mapping[int, str] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()

    def __post_init__(self) -> None:
        numbers = [card.number for card in self.cards]
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"cards must have different numbers, got {sorted(numbers)}")
        check_proposals(self.decisions, self.proposals)
        check_whys(self.whys, self.reasons, len(self.examples))

    @property
    def tiles(self) -> Iterator[Tile]:
        """Every one, in the page's order."""
        return chain(*(gallery.tiles for gallery in self.galleries), *(card.tiles for card in self.cards))

    @property
    def proposals(self) -> Iterator[Proposal]:
        return (tile.proposal for tile in self.tiles if tile.proposal is not None)

    @property
    def whys(self) -> Iterator[Why]:
        return (tile.why for tile in self.tiles if tile.why is not None)


def tiles_per_card(cards: int) -> tuple[int, int]:
    """How many (typical, unusual) tiles a card may have, so that a page of so many cards stays small and quick.

    Whole rows of the page at full width, which sets 6 typical ones beside 3 unusual ones.
    """
    rows = min(3, max(1, MOST_TILES // (9 * max(1, cards))))
    return 6 * rows, 3 * rows


def render(page: Page) -> str:
    """The page as HTML, to be written as UTF-8. The same page gives the same text."""
    decisions = page.decisions
    explained = any(True for _ in page.whys)
    parts = ["decisions"] * (decisions is not None) + ["why"] * explained
    style = _file("style.css") + "".join(_file(f"{part}.css") for part in parts)
    script = _file("script.js") + "".join(_file(f"{part}.js") for part in parts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    sections = _sections(page)
    links = "".join(f'<a href="#{name}">{text(heading)}</a>' for name, heading, _ in sections)
    menu = f'<nav class="menu" aria-label="Sections"><a href="#top">Top</a>{links}</nav>' if len(sections) > 1 else ""
    body = "".join(content for _, _, content in sections)
    bar = bar_html(decisions, page_key(page.title, decisions, page.proposals)) if decisions else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(page.title)}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
{_head_html(page)}
{menu}
<main>
{body}
</main>
{bar}
{_DIALOG.format(panel=(WHY_PANEL if explained else "") + (PANEL if decisions else ""))}
{_examples_html(page) if explained else ""}
<script>{script}</script>
</body>
</html>
"""


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


_DIALOG: Final = """<dialog id="viewer" aria-labelledby="viewer-name">
<figure><img alt=""><figcaption><p id="viewer-name"></p><p id="viewer-caption"></p></figcaption></figure>
{panel}<form method="dialog"><button type="button" id="viewer-previous" aria-label="Previous">‹</button>
<span id="viewer-place"></span><button type="button" id="viewer-next" aria-label="Next">›</button>
<button id="viewer-close" aria-label="Close">×</button></form>
</dialog>"""


def _examples_html(page: Page) -> str:
    pictures = (_img_html(each.image, text(each.label)) for each in page.examples)
    return examples_html(page.examples, page.reasons, pictures)


def _head_html(page: Page) -> str:
    subtitle = f'<p class="subtitle">{text(page.subtitle)}</p>' if page.subtitle else ""
    items = "".join(f"<li>{text(note)}</li>" for note in page.notes)
    notes = f'<ul class="notes">{items}</ul>' if items else ""
    numbers = _facts_html(page.facts, "numbers")
    return f'<header class="head" id="top"><h1>{text(page.title)}</h1>{subtitle}{numbers}{notes}</header>'


def _facts_html(facts: Iterable[tuple[str, str]], kind: str) -> str:
    items = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in facts)
    return f'<dl class="{kind}">{items}</dl>' if items else ""


def _sections(page: Page) -> list[tuple[str, str, str]]:
    """(id, heading, html) of each part that there is."""
    column = {name: at for at, name in enumerate(page.decisions.labels if page.decisions else ())}
    sections = []
    for at, gallery in enumerate(page.galleries, start=1):
        sections.append((f"gallery-{at}", gallery.heading, _gallery_html(gallery, f"gallery-{at}", column)))
    if page.cards:
        sections.append(("cards", page.cards_heading, _cards_html(page, column)))
    if page.histograms or page.reliability or page.curve:
        charts = "".join(map(figure_html, page.histograms))
        charts += reliability_html(page.reliability) if page.reliability else ""
        charts += curve_html(page.curve) if page.curve else ""
        heading = page.histograms_heading
        content = f'<section id="charts"><h2>{text(heading)}</h2><div class="charts">{charts}</div></section>'
        sections.append(("charts", heading, content))
    for at, table in enumerate(page.tables, start=1):
        sections.append((f"table-{at}", table.title, _table_html(table, f"table-{at}")))
    return sections


def _gallery_html(gallery: Gallery, name: str, column: Mapping[str, int]) -> str:
    command = f' <code class="command">{text(gallery.command)}</code>' if gallery.command else ""
    note = f'<p class="note">{text(gallery.note)}{command}</p>' if gallery.note or command else ""
    grid = _tiles_html(gallery.tiles, column) if gallery.tiles else '<p class="empty">None</p>'
    ratio = f"--ratio:{_tile_ratio(_pictures(gallery.tiles)):.3f}"
    return (
        f'<section class="gallery" id="{name}" style="{ratio}"><h2>{text(gallery.heading)}</h2>{note}{grid}</section>'
    )


def _cards_html(page: Page, column: Mapping[str, int]) -> str:
    largest = max(card.size for card in page.cards)
    entries = "".join(_entry_html(page, card, largest) for card in page.cards)
    cards = "".join(_card_html(page, card, column) for card in page.cards)
    heading = text(page.cards_heading)
    return (
        f'<section id="cards"><div class="bar-head"><h2>{heading}</h2>{_controls_html(page)}</div>'
        f'<nav class="overview{" many" if len(page.cards) > MANY_CARDS else ""}" aria-label="{heading}">'
        f'<ul>{entries}</ul></nav><div class="cards">{cards}</div>'
        f'<p class="empty" id="nothing-found" hidden>Nothing has this in its name.</p></section>'
    )


def _controls_html(page: Page) -> str:
    if len(page.cards) <= MANY_CARDS:
        return ""
    by_size = '<option value="size">largest first</option><option value="smallest">smallest first</option>'
    if page.numbered:
        wanted, orders = "number or word", f'<option value="number">by number</option>{by_size}'
    else:  # the numbers only keep an order that people know: that of the names
        wanted, orders = "part of a name", f'{by_size}<option value="number">by name</option>'
    return (
        f'<form class="controls" id="controls"{" data-numbered" if page.numbered else ""} hidden>'
        f'<label>Find <input type="search" id="find" placeholder="{wanted}"></label>'
        f'<label>Order <select id="order">{orders}</select></label></form>'
    )


def _entry_html(page: Page, card: Card, largest: int) -> str:
    """A group in the overview: one picture, its name, its size, and a bar in proportion to the largest group's."""
    face = card.face or next(iter(_pictures(card.tiles)), None)
    number = f"<b>{card.number}</b> " if page.numbered else ""
    picture = _img_html(face, "") if face is not None else '<span class="no-picture"></span>'
    return (
        f'<li {_card_data(page, card)}><a href="#group-{card.number}">{picture}'
        f'<span class="words"><span class="name">{number}<bdi>{text(card.name)}</bdi></span>'
        f'<span class="size">{count(card.size)} · {percent(card.share)}</span>'
        f'<span class="bar" style="--part:{card.size / max(1, largest):.4f}"></span></span></a></li>'
    )


def _card_data(page: Page, card: Card) -> str:
    number = f"{card.number} " if page.numbered else ""
    return f'data-number="{card.number}" data-size="{card.size}" data-find="{number}{text(card.name.lower())}"'


def _card_html(page: Page, card: Card, column: Mapping[str, int]) -> str:
    shown = f"all {count(card.size)} shown" if card.shown == card.size else f"{card.shown:,} of {card.size:,} shown"
    ratio = f"--ratio:{_tile_ratio(_pictures(card.tiles)):.3f}"
    number = f'<b class="number">{card.number}</b>' if page.numbered else ""
    grids = _grid_html(page.typical_heading, "typical", card.typical, column)
    grids += _grid_html(page.unusual_heading, "unusual", card.unusual, column)
    return (
        f'<article class="card" id="group-{card.number}" style="{ratio}" {_card_data(page, card)}>'
        f'<header><h3>{number}<bdi>{text(card.name)}</bdi></h3><p class="size">'
        f'{count(card.size, page.things)} · {percent(card.share)} <span class="shown">{shown}</span></p></header>'
        f'{_facts_html(card.facts, "facts")}<div class="grids">{grids}</div></article>'
    )


def _pictures(tiles: Iterable[Tile]) -> list[bytes]:
    return [tile.image for tile in tiles if tile.image is not None]


def _grid_html(heading: str, kind: str, tiles: tuple[Tile, ...], column: Mapping[str, int]) -> str:
    return f'<section class="{kind}"><h4>{text(heading)}</h4>{_tiles_html(tiles, column)}</section>' if tiles else ""


def _tiles_html(tiles: Iterable[Tile], column: Mapping[str, int]) -> str:
    return f'<ul class="tiles">{"".join(_tile_html(tile, column) for tile in tiles)}</ul>'


def _tile_html(tile: Tile, column: Mapping[str, int]) -> str:
    name = text(tile.title)
    caption = f'<span class="caption">{text(tile.caption)}</span>' if tile.caption else ""
    if tile.image is None:
        words = f'<span class="name"><bdi>{name}</bdi></span>'
        return f'<li><span class="tile missing" title="{name}">{words}</span>{caption}</li>'
    picture = _img_html(tile.image, name)
    proposal = proposal_data(tile.proposal, column) if tile.proposal else ""
    proposal += why_data(tile.why) if tile.why else ""
    return f'<li{proposal}><button type="button" class="tile" title="{name}">{picture}</button>{caption}</li>'


def _img_html(jpeg: bytes, escaped_name: str) -> str:
    width, height = jpeg_size(jpeg)
    crisp = ' class="crisp"' if max(width, height) <= PIXELATED else ""
    data = base64.b64encode(jpeg).decode("ascii")
    return (
        f'<img{crisp} src="data:image/jpeg;base64,{data}" alt="{escaped_name}" width="{width}" height="{height}" '
        f'loading="lazy" decoding="async">'
    )


def _tile_ratio(pictures: list[bytes]) -> float:
    """Width to height of a card's tiles: the middle one of its pictures, so that few of them leave room empty."""
    ratios = [width / height for width, height in map(jpeg_size, pictures)]
    return min(1.6, max(0.75, median(ratios))) if ratios else 1.0


def _table_html(table: Table, name: str) -> str:
    rows = table.rows[:MOST_ROWS]
    left = (len(table.rows) if table.total is None else table.total) - len(rows)
    numeric = [bool(rows) and all(_NUMERIC.fullmatch(cell) for cell in column) for column in zip(*rows, strict=True)]
    numeric = [is_number and at >= table.words for at, is_number in enumerate(numeric)] or [False] * len(table.header)
    kinds = [' class="numeric"' if is_number else "" for is_number in numeric]
    head = "".join(f'<th scope="col"{kind}>{text(cell)}</th>' for kind, cell in zip(kinds, table.header, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{text(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    note = f'<p class="note">{text(table.note)}</p>' if table.note else ""
    more = f'<p class="note">and {count(left)} more, see {text(table.see)}</p>' if left else ""
    if not rows:
        return f'<section id="{name}"><h2>{text(table.title)}</h2>{note}<p class="empty">None</p>{more}</section>'
    return (
        f'<section id="{name}"><h2>{text(table.title)}</h2>{note}'
        f'<div class="table" role="region" aria-label="{text(table.title)}" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}</section>"
    )
