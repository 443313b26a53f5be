"""Any result as one HTML page: self-contained, so that it opens from disk, without a network, years from now.

In: a `Page` of plain frozen records, made by whoever knows the result. Out: text. Nothing here knows images on disk,
tensors, tasks or the other rooms; it samples nothing: who makes a `Card` chooses its tiles (`tiles_per_card` says how
many keep the page small), and the page says how many of how many are shown.

    markup.py       escaping, and numbers as people read them
    pictures.py     pixels -> the JPEG of a tile
    charts.py       values -> Histogram -> inline SVG
    reliability.py  confidences beside accuracies -> inline SVG
    curve.py        what is left after so much work, with a band -> inline SVG
    decisions.py    what a person may decide about a tile, as decisions.jsonl; with decisions.css and decisions.js
    why.py          why an image is hard, what it is compared with, a filter; with why.css and why.js
    page.py         Page -> HTML, with style.css and script.js inside
"""

from engine.report.charts import Histogram, histogram
from engine.report.curve import Curve
from engine.report.decisions import Decisions, Proposal
from engine.report.page import MOST_TILES, Card, Gallery, Page, Table, Tile, render, tiles_per_card
from engine.report.pictures import thumbnail
from engine.report.reliability import Reliability
from engine.report.why import Example, Why

__all__ = [
    "MOST_TILES",
    "Card",
    "Curve",
    "Decisions",
    "Example",
    "Gallery",
    "Histogram",
    "Page",
    "Proposal",
    "Reliability",
    "Table",
    "Tile",
    "Why",
    "histogram",
    "render",
    "thumbnail",
    "tiles_per_card",
]
