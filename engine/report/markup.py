"""Text and numbers as a page shows them: escaped, never ambiguous, digits grouped by thousands.

Functions return HTML-safe text. Whatever came from a user (file names above all) goes through `text` once, for element
content and for double-quoted attributes alike.
"""

from __future__ import annotations

import html
import math
import unicodedata
from typing import Final

#: What would be invisible, break a line, reorder its neighbors (bidi overrides) or not encode (lone surrogates).
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS: Final = "\u200c\u200d"  # needed inside emoji and some scripts


def text(raw: str) -> str:
    r"""Escaped for HTML content and double-quoted attributes; what cannot be seen is spelled out.

    >>> text('a<b> & "c"\n')
    'a&lt;b&gt; &amp; &quot;c&quot;\\n'
    """
    if not raw.isprintable():
        raw = "".join(map(_seen, raw))
    return html.escape(raw, quote=True)


def _seen(character: str) -> str:
    if unicodedata.category(character) not in _UNSEEN or character in _JOINERS:
        return character
    return character.encode("unicode_escape").decode("ascii")


def count(number: int, things: str = "") -> str:
    """`count(1204, "images")` -> "1,204 images", `count(1, "images")` -> "1 image"."""
    if not things:
        return f"{number:,}"
    return f"{number:,} {text(things.removesuffix('s') if number == 1 else things)}"


def percent(share: float) -> str:
    """A share in [0, 1]: "12.3 %"; something never reads "0.0 %", nor not quite everything "100.0 %"."""
    if 0 < share < 0.0005:
        return "&lt;0.1 %"
    if 0.9995 <= share < 1:
        return "&gt;99.9 %"
    return f"{100 * share:.1f} %" if 0 < share < 1 else f"{100 * share:.0f} %"


def number(value: float, step: float) -> str:
    """A value to a tenth of `step` (> 0): enough to tell it from its neighbors one step away, and no more."""
    decimals = max(0, 1 - math.floor(math.log10(step)))
    if abs(value) >= 1e15 or decimals > 9:
        return f"{value:.6g}".replace("-", "−")
    return f"{value:,.{decimals}f}".replace("-", "−")
