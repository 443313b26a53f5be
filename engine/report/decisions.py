"""What a person decides on a page: which labels an image gets, as a file to take away.

The page carries what a machine proposes in data attributes; decisions.js does the rest and offers decisions.jsonl, one
`{"source": ..., "labels": [...]}` a line; no labels say that none of the proposed ones is right. Texts travel as JSON
in ASCII, so that quotes, line breaks, and file names that are not UTF-8 come back as they went in.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from engine.report.markup import text


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a machine says about an image, for a person to confirm, correct or reject.

    source: what the decision will name. labels: given to the image. likely: (label, probability in [0, 1]), most
    probable first. Raises ValueError when a probability is out of range.
    """

    source: str
    labels: tuple[str, ...]
    likely: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        for name, share in self.likely:
            if not 0 <= share <= 1:
                raise ValueError(f"{self.source}: probability of {name!r} must be in [0, 1], got {share}")


@dataclass(frozen=True, slots=True)
class Decisions:
    """How a page's proposals are decided.

    labels: all that there are to choose from; a person may type others. several: whether an image may have several.
    advice: what to do with the file. Raises ValueError when a label is there twice.
    """

    labels: tuple[str, ...]
    several: bool = False
    advice: str = ""

    def __post_init__(self) -> None:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"decisions must have different labels, got {len(self.labels)} and one twice")


def check_proposals(decisions: Decisions | None, proposals: Iterable[Proposal]) -> None:
    """Raise ValueError unless every proposal speaks of known labels."""
    known = set(decisions.labels) if decisions else set()
    for proposal in proposals:
        if decisions is None:
            raise ValueError(f"{proposal.source}: a proposal needs the decisions of its page, got none")
        unknown = {*proposal.labels, *(name for name, _ in proposal.likely)} - known
        if unknown:
            raise ValueError(f"{proposal.source}: labels must be among the page's, got {min(unknown)!r}")


def page_key(title: str, decisions: Decisions, proposals: Iterable[Proposal]) -> str:
    """By what a browser keeps the decisions: another result on the same images has another one."""
    said = json.dumps([title, decisions.labels, [(each.source, each.labels) for each in proposals]])
    return hashlib.sha256(said.encode("ascii")).hexdigest()[:24]


def proposal_data(proposal: Proposal, column: Mapping[str, int]) -> str:
    """The attributes of a tile that can be decided; labels by their number, probabilities in 1/1000."""
    given = [column[name] for name in proposal.labels]
    likely = [[column[name], round(1000 * share)] for name, share in proposal.likely]
    return f' data-source="{_json(proposal.source)}" data-given="{_json(given)}" data-likely="{_json(likely)}"'


def bar_html(decisions: Decisions, key: str) -> str:
    """The line at the bottom: how many are decided, undo, download. Shown by the script."""
    advice = f'<p class="advice"><code>{text(decisions.advice)}</code></p>' if decisions.advice else ""
    return (
        f'<form id="decisions" aria-label="Decisions" hidden data-key="{key}" data-labels="{_json(decisions.labels)}" '
        f'data-several="{_json(decisions.several)}"><p class="count" aria-live="polite"></p>{advice}'
        f'<p class="buttons"><button type="button" id="decisions-undo" disabled title="Ctrl+Z, or u in the viewer">'
        f"Undo</button>"
        f'<button type="button" id="decisions-download" class="main" disabled>Download decisions.jsonl</button></p>'
        f"</form>"
    )


#: Beside the picture in the viewer.
PANEL: Final = """<section id="decide" aria-label="Decide" hidden>
<p id="decide-state" aria-live="polite"></p>
<div id="decide-labels" role="group" aria-label="Labels"></div>
<p id="decide-other"><input type="search" id="decide-find" placeholder="another or a new label  /" autocomplete="off"
spellcheck="false" aria-label="Another or a new label" aria-controls="decide-found"></p>
<div id="decide-found" role="group" aria-label="Labels found"></div>
<p class="buttons">
<button type="button" id="decide-confirm" class="main" autofocus><span>Confirm</span> <kbd>Enter</kbd></button>
<button type="button" id="decide-reject">Reject <kbd>x</kbd></button>
<button type="button" id="decide-clear">Take back</button></p>
</section>
"""


def _json(value: Any) -> str:
    return html.escape(json.dumps(value, separators=(",", ":")), quote=True)
