"""The page: well-formed, self-contained, harmless whatever a file is called; charts and pictures by hand."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decisions import read_decisions
from engine.report import (
    Card,
    Decisions,
    Gallery,
    Histogram,
    Page,
    Proposal,
    Reliability,
    Table,
    Tile,
    histogram,
    render,
    thumbnail,
    tiles_per_card,
)
from engine.report.charts import COLORS, MOST_BINS, _log_ticks, _steps, _tick_label, figure_html
from engine.report.markup import count, number, percent, text
from engine.report.page import MOST_ROWS
from engine.report.pictures import jpeg_size
from engine.report.reliability import reliability_html

VOID = {"meta", "link", "img", "input", "br", "hr"}
NASTY = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&amp;\n\t\udcff\u202e\u2028 –ñ🙂"


class Tree(HTMLParser):
    """Every element must be closed in order; keeps the elements, their attributes and the text outside scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    def all(self, tag: str, kind: str | None = None) -> list[dict[str, str | None]]:
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and (kind is None or kind in (attributes.get("class") or "").split())
        ]


def picture(width: int = 40, height: int = 30, value: int = 90) -> bytes:
    return thumbnail(np.full((height, width, 3), value, np.uint8))


def full_page(name: str = "IMG_1.jpg") -> Page:
    tiles = (Tile(picture(), name, name), Tile(None, name))
    rng = np.random.default_rng(3)
    one = histogram([(name, rng.normal(size=200))], name=name, meaning=name, unit=name, things=name)
    three = histogram([(name, rng.normal(size=99) + at) for at in range(3)], name=name)
    return Page(
        title=name,
        subtitle=name,
        facts=((name, name),),
        notes=(name,),
        cards=(
            Card(3, name, 4312, 0.9, ((name, name),), tiles, (Tile(picture(value=9), name),)),
            Card(1, name, 0, 0.0),
        ),
        histograms=(one, three),
        tables=(Table(name, (name, "n"), ((name, "1"),), name, total=2, see=name), Table(name, (name,), ())),
        cards_heading=name,
        histograms_heading=name,
        things=name,
    )


def decided_page(name: str = "IMG_1.jpg", *, several: bool = False) -> Page:
    """Two labels; the first image is shown twice."""
    first = Tile(picture(), name, "51 %", Proposal(name, (name,), ((name, 0.51), ("b", 0.49))))
    second = Tile(picture(value=9), "2", "52 %", Proposal("2", (name,), ((name, 0.52), ("b", 0.48))))
    third = Tile(picture(value=5), "3", "53 %", Proposal("3", ("b",), (("b", 0.53), (name, 0.47))))
    return Page(
        name,
        galleries=(Gallery(name, (first, second), note=name),),
        cards=(Card(1, name, 9, 1.0, (), (first, third), face=picture()),),
        reliability=Reliability(name, name, ((0.5, 0.4, 10), (0.9, 0.95, 30))),
        numbered=False,
        decisions=Decisions((name, "b"), several=several, advice=name),
    )


# the page


def test_page_is_well_formed_and_says_how_many_are_shown():
    tree = Tree(render(full_page()))
    words = "".join(tree.words)
    assert "3 of 4,312 shown" in words
    assert "all 0 shown" in words
    assert [card["id"] for card in tree.all("article", "card")] == ["group-3", "group-1"]
    names = [attributes["id"] for _, attributes in tree.elements if "id" in attributes]
    assert len(names) == len(set(names))
    targets = {a["href"] for a in tree.all("a")}
    assert targets == {"#top", "#cards", "#charts", "#table-1", "#table-2", "#group-3", "#group-1"}
    assert {target[1:] for target in targets} <= set(names)
    assert len(tree.all("button", "tile")) == 2  # a tile without a picture has nothing to enlarge
    assert len(tree.all("span", "missing")) == 1


def test_page_of_nothing_is_a_page():
    tree = Tree(render(Page("Empty")))
    assert "".join(tree.words).split()[0] == "Empty"
    assert tree.all("article") == tree.all("nav") == tree.all("table") == []


def test_page_loads_nothing_and_allows_only_its_own_script():
    page = render(replace(decided_page(), cards=full_page().cards, histograms=full_page().histograms))
    assert "http:" not in page and "https:" not in page and "@import" not in page and "url(" not in page
    tree = Tree(page)
    for _, attributes in tree.elements:
        for key in ("src", "href"):
            if key in attributes:
                assert attributes[key].startswith(("#", "data:image/jpeg;base64,", "data:,"))
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = (meta["content"] for meta in tree.all("meta") if meta.get("http-equiv"))
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize("make", [full_page, decided_page])
def test_nothing_that_a_user_named_becomes_markup(make):
    page = render(make(NASTY))
    page.encode("utf-8")  # no lone surrogate is left
    tree, plain = Tree(page), Tree(render(make()))
    assert [tag for tag, _ in tree.elements] == [tag for tag, _ in plain.elements]
    for (_, got), (_, wanted) in zip(tree.elements, plain.elements, strict=True):
        assert got.keys() == wanted.keys()
    seen = NASTY.translate({10: "\\n", 9: "\\t", 0xDCFF: "\\udcff", 0x202E: "\\u202e", 0x2028: "\\u2028"})
    assert tree.all("button", "tile")[0]["title"] == seen
    assert seen in tree.words  # read back as it is, not escaped twice
    assert "\u202e" not in page


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_any_name_is_escaped(name):
    safe = text(name)
    assert not set(safe) & set("<>\"'\n\r\x00")
    safe.encode("utf-8")
    (title,) = (span["title"] for span in Tree(f'<span title="{safe}"></span>').all("span"))
    if name.isprintable():
        assert title == name


def test_joined_emoji_and_wide_spaces_stay():
    assert text("👩‍👧 a\u00a0b\u3000c") == "👩‍👧 a\u00a0b\u3000c"


def test_same_page_same_text():
    assert render(full_page()) == render(full_page())
    assert render(decided_page()) == render(decided_page())


def test_page_is_hardly_larger_than_its_pictures():
    typical, unusual = tiles_per_card(200)
    image = picture(300, 200)
    tiles = tuple(Tile(image, f"IMG_{at:04}.jpg") for at in range(typical + unusual))
    cards = tuple(Card(at, "dark, soft", 900, 0.005, (), tiles[:typical], tiles[typical:]) for at in range(1, 201))
    page = render(Page("Many", cards=cards))
    shown = 200 * (typical + unusual)
    pictures = (shown + 200) * 4 * math.ceil(len(image) / 3)  # each card's first one is in the overview as well
    assert len(page) - pictures < 20_000 + 200 * 1_000 + shown * 250
    assert 'id="find"' in page and 'id="find"' not in render(Page("Few", cards=cards[:20]))


@pytest.mark.parametrize(
    ("cards", "wanted"), [(0, (18, 9)), (8, (18, 9)), (100, (12, 6)), (200, (6, 3)), (900, (6, 3))]
)
def test_tiles_per_card(cards, wanted):
    assert tiles_per_card(cards) == wanted


def test_overview_bars_are_in_proportion_to_the_largest_group():
    cards = tuple(Card(at, "", size, size / 500) for at, size in enumerate((400, 100, 0), start=1))
    bars = Tree(render(Page("Bars", cards=cards))).all("span", "bar")
    assert [bar["style"] for bar in bars] == ["--part:1.0000", "--part:0.2500", "--part:0.0000"]


def test_tiles_take_the_middle_ratio_of_their_pictures():
    tiles = tuple(Tile(picture(width, 30), "a") for width in (30, 40, 900))
    (card,) = Tree(render(Page("Ratio", cards=(Card(1, "", 9, 1.0, (), tiles),)))).all("article")
    assert card["style"] == "--ratio:1.333"


def test_tiny_pictures_are_drawn_with_square_pixels():
    tiles = (Tile(picture(8, 8), "digit"), Tile(picture(40, 40), "icon"))
    images = Tree(render(Page("Crisp", cards=(Card(1, "", 2, 1.0, (), tiles),)))).all("img")
    assert [image.get("class") for image in images if image["alt"]] == ["crisp", None]
    assert [(image["width"], image["height"]) for image in images if image["alt"]] == [("32", "32"), ("160", "160")]


def test_long_tables_say_how_many_rows_are_left():
    rows = tuple((f"{at}.jpg", f"{at:,}") for at in range(MOST_ROWS + 4))
    table = Table("Unreadable files", ("file", "bytes"), rows)
    page = render(Page("Table", tables=(table,)))
    assert "and 4 more, see task.json" in page and ">99.jpg<" in page and ">100.jpg<" not in page
    assert "and 1,204 more" in render(Page("Table", tables=(replace(table, total=MOST_ROWS + 1204),)))
    assert "more, see" not in render(Page("Table", tables=(replace(table, rows=rows[:MOST_ROWS]),)))


def test_columns_of_numbers_are_aligned_as_numbers():
    rows = (("1x.jpg", "1,204", "12.3 %", "broken"), ("b", "−0.5", "–", ""))
    tree = Tree(render(Page("Table", tables=(Table("T", ("file", "a", "b", "why"), rows),))))
    assert [head.get("class") for head in tree.all("th")] == [None, "numeric", "numeric", None]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Card(7, "", 1, 1.5), r"card 7: share must be in \[0, 1\], got 1.5"),
        (
            lambda: Card(7, "", 1, 1.0, (), (Tile(None, "a"),), (Tile(None, "b"),)),
            "card 7: shows 2 tiles of a group of 1",
        ),
        (lambda: Page("", cards=(Card(1, "", 1, 0.5), Card(1, "", 1, 0.5))), r"different numbers, got \[1, 1\]"),
        (lambda: Table("T", ("a", "b"), (("1", "2"), ("1",))), "T: row 1 must have 2 cells, got 1"),
        (lambda: Proposal("1.jpg", ("a",), (("a", 1.5),)), r"1.jpg: probability of 'a' must be in \[0, 1\], got 1.5"),
        (lambda: Decisions(("a", "b", "a")), "different labels, got 3 and one twice"),
        (lambda: replace(decided_page(), decisions=None), "IMG_1.jpg: a proposal needs the decisions of its page"),
        (lambda: replace(decided_page(), decisions=Decisions(("b",))), "among the page's, got 'IMG_1.jpg'"),
        (lambda: Reliability("R", "", ((0.5, 1.5, 1),)), r"R: a point must be .* got \(0.5, 1.5, 1\)"),
        (lambda: Reliability("R", "", ((0.5, 0.5, 0),)), r"count above 0\), got"),
        (lambda: Reliability("R", "", ((0.6, 0.5, 1), (0.5, 0.5, 1))), "R: points must be in order of confidence"),
        (lambda: Table("T", ("a",), (("1",),), total=0), "T: total must be at least 1, got 0"),
        (
            lambda: render(Page("", cards=(Card(1, "", 1, 1.0, (), (Tile(b"GIF89a..", "a"),)),))),
            "bytes of a JPEG, got b'GIF",
        ),
        (lambda: Histogram("h", "", "", (0, 0), (("a", (1,)),)), "h: edges must increase"),
        (lambda: Histogram("h", "", "", (0, math.nan), (("a", (1,)),)), "h: edges must increase"),
        (lambda: Histogram("h", "", "", (-math.inf, 0, math.inf), (("a", (1, 1)),)), "two of them finite"),
        (lambda: Histogram("h", "", "", (0, 1), (("a", (1,)),), log=True), "logarithmic axis must be above 0, got 0"),
        (lambda: Histogram("h", "", "", (0, 1), (("a", (1,)),), whole=True), "must end in .5"),
        (lambda: Histogram("h", "", "", (0, 1), ()), "at least one series"),
        (lambda: Histogram("h", "", "", (0, 1), (("a", (1, 2)),)), "h: 'a' must have 1 counts, one a bin, got 2"),
        (lambda: Histogram("h", "", "", (0, 1), (("a", (1,)),), missing=(1, 2)), "missing must have 1 counts, got 2"),
        (lambda: histogram([], name="h"), "at least one series"),
        (lambda: histogram([("a", np.zeros((2, 2)))], name="h"), r"h: values of 'a' must be \(n,\), got \(2, 2\)"),
        (lambda: histogram([("a", np.zeros(2))], name="h", bins=0), "h: bins must be at least 1, got 0"),
        (lambda: thumbnail(np.zeros((4, 4), np.uint8)), r"must be \(h, w, 3\) uint8, got \(4, 4\) uint8"),
        (lambda: thumbnail(np.zeros((4, 4, 3))), "got .* float64"),
        (lambda: thumbnail(np.zeros((0, 4, 3), np.uint8)), r"got \(0, 4, 3\)"),
        (lambda: thumbnail(np.zeros((4, 4, 3), np.uint8), 0), "side must be at least 1 pixel, got 0"),
    ],
)
def test_wrong_input_is_refused_in_one_line(wrong, message):
    with pytest.raises(ValueError, match=message) as error:
        wrong()
    assert "\n" not in str(error.value)


# decisions


def test_tiles_carry_what_is_proposed_and_the_page_all_labels():
    tree = Tree(render(decided_page(NASTY)))
    items = [item for item in tree.all("li") if "data-source" in item]
    assert [json.loads(item["data-source"]) for item in items] == [NASTY, "2", NASTY, "3"]  # as it is, to the last bit
    assert [item["data-given"] for item in items] == ["[0]", "[0]", "[0]", "[1]"]
    assert items[3]["data-likely"] == "[[1,530],[0,470]]"
    (bar,) = [form for form in tree.all("form") if form.get("id") == "decisions"]
    assert json.loads(bar["data-labels"]) == [NASTY, "b"] and bar["data-several"] == "false"
    assert "hidden" in bar  # without a script there is nothing to click
    assert all(key[:2] != "on" for _, attributes in tree.elements for key in attributes)


def test_decisions_are_kept_by_what_is_proposed():
    def key(page):
        return Tree(render(page)).all("form")[0]["data-key"]

    page = decided_page()
    assert key(page) == key(replace(page, notes=("another note",), reliability=None))
    other = replace(page.galleries[0].tiles[0], proposal=Proposal("IMG_1.jpg", ("b",)))
    assert key(page) != key(replace(page, galleries=(Gallery("", (other,)),)))
    assert key(page) != key(replace(page, title="another"))


def test_a_page_without_decisions_has_none_of_it():
    page = render(full_page())
    assert "decisions" not in page and "data-source" not in page and 'id="decide"' not in page


def test_cards_without_numbers_are_found_and_ordered_by_name():
    cards = tuple(Card(at, f"label {at}", 1, 0.1) for at in range(30))
    page = render(Page("", cards=cards, numbered=False))
    assert 'class="number"' not in page and "by name" in page and 'data-find="label 7"' in page
    assert "data-numbered" not in Tree(page).all("form", "controls")[0]
    assert "data-numbered" in Tree(render(Page("", cards=cards))).all("form", "controls")[0]


def test_columns_of_words_stay_words():
    rows = (("7", "12"),)
    tree = Tree(render(Page("", tables=(Table("T", ("label", "images"), rows, words=1),))))
    assert [cell.get("class") for cell in tree.all("td")] == [None, "numeric"]


#: Operates the page and tells what it sees, all before the browser is done with loading: files holds what was offered.
DRIVER = """
const files = [];
Blob = class { constructor(parts) { files.push(parts.join("")); } };
URL.createObjectURL = () => "#";
const press = (key) => {
  const at = document.activeElement;
  const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
  if (at.dispatchEvent(event) && key === "Enter" && at.matches("button")) at.click();  // as a real key would
};
const click = (id) => document.getElementById(id).click();
const marks = () => [...document.querySelectorAll("li[data-source]")].map((item) => item.dataset.mark || ".").join("");
const told = [];
const tell = (what) => told.push(what);
%s
click("decisions-download");
document.body.innerHTML = "";
document.body.dataset.told = JSON.stringify({ told, files });
"""


def operate(tmp_path, page: str, steps: str) -> tuple[list[str], bytes]:
    """Run steps on a page in a browser: (what they told, decisions.jsonl)."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium")
    driver = DRIVER % steps
    digest = base64.b64encode(hashlib.sha256(driver.encode()).digest()).decode("ascii")
    page = page.replace("script-src '", f"script-src 'sha256-{digest}' '", 1)  # all else stays forbidden
    file = tmp_path / "page.html"
    file.write_text(page.replace("</body>", f"<script>{driver}</script></body>"), "utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    run = subprocess.run([*command, "--dump-dom", file.as_uri()], capture_output=True, timeout=60, check=True)
    (body,) = Tree(run.stdout.decode("utf-8")).all("body")
    seen = json.loads(body["data-told"] or "")
    return seen["told"], "".join(seen["files"]).encode("utf-8")


def test_decisions_by_keys_become_a_file_that_is_read(tmp_path):
    steps = """
    document.querySelector("li[data-source] button").click();
    press("Enter");                       // the first is right, here and in its card
    tell(marks());
    press("2");                           // the second is b; all in the gallery are decided
    tell(document.getElementById("decide-state").textContent);
    press("u");
    press("x");                           // no: it is neither
    tell(marks() + document.querySelector("#decisions .count").textContent);
    viewer.close();
    document.querySelector(".card .all").click();  // the card's only other one
    tell(marks());
    """
    told, file = operate(tmp_path, render(decided_page("a 'quoted'\n\udcff–🙂")), steps)
    assert told[0] == "✓.✓."
    assert told[1].startswith("Corrected: a 'quoted'") and told[1].endswith("→ b")
    assert told[2] == "✓✕✓.2 decided: 1 confirmed, 1 rejected"
    assert told[3] == "✓✕✓✓"
    path = tmp_path / "decisions.jsonl"
    path.write_bytes(file)
    name = "a 'quoted'\n\udcff–🙂"
    assert list(read_decisions(path).items()) == [(name, (name,)), ("2", ()), ("3", ("b",))]


def test_several_labels_new_ones_and_decisions_that_outlive_a_reload(tmp_path):
    page = render(decided_page("a", several=True))
    steps = """
    document.querySelector("li[data-source] button").click();
    press("2");
    tell(document.getElementById("decide-state").textContent);
    const find = document.getElementById("decide-find");
    find.focus();
    find.value = " new one ";
    find.dispatchEvent(new Event("input"));
    press("Enter");
    tell(document.getElementById("decide-state").textContent);
    """
    told, file = operate(tmp_path, page, steps)
    assert told == ["Corrected: a → a, b", "Corrected: a → a, b, new one"]
    assert file == b'{"source":"a","labels":["a","b","new one"]}\n'
    told, again = operate(tmp_path, page, 'tell(marks()); click("decisions-undo"); tell(marks());')
    assert told == ["→.→.", "...."]
    assert again == b""  # nothing is decided: nothing to download


def test_decisions_without_a_place_to_keep_them(tmp_path):
    page = render(decided_page("a")).replace("localStorage", "nowhere.storage")
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    page = re.sub(r"script-src 'sha256-[^']*'", f"script-src 'sha256-{digest}'", page)
    steps = """
    document.querySelector("li[data-source] button").click();
    press("2");
    tell(document.querySelector("#decisions .count").textContent);
    """
    told, file = operate(tmp_path, page, steps)
    assert told == ["1 decided: 1 corrected, this browser keeps nothing: download before you close the page"]
    assert file == b'{"source":"a","labels":["b"]}\n'


# reliability


def test_reliability_by_hand():
    drawing = reliability_html(Reliability("R", "", ((0.5, 0.25, 25), (1.0, 1.0, 100))))
    # the axis runs from 52 (0) to 364 (1), upright from 164 to 10; areas are in proportion to counts
    dots = re.findall(r'<circle class="dot s0" cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"/>', drawing)
    assert [tuple(map(float, dot)) for dot in dots] == [(208, 125.5, 3.5), (364, 10, 7)]
    assert "<title>50.0 % sure\n25.0 % right, of 25</title>" in drawing
    assert 'x="44.0" y="10" width="242.0"' in drawing  # answers halfway to its neighbor, 286
    assert "125 predictions" in drawing
    Tree(drawing)
    assert "No values" in reliability_html(Reliability("R", "", ()))


# numbers


def test_numbers_as_people_read_them():
    assert [count(1, "images"), count(1204, "images"), count(0)] == ["1 image", "1,204 images", "0"]
    assert [percent(share) for share in (0, 0.0001, 0.123, 0.9999, 1)] == [
        "0 %",
        "&lt;0.1 %",
        "12.3 %",
        "&gt;99.9 %",
        "100 %",
    ]
    assert [number(0.1234, 0.02), number(-1234.5, 100), number(2e20, 1e19)] == ["0.123", "−1,234", "2e+20"]


# histograms


def test_bins_by_hand():
    chart = histogram([("", np.array([0, 0.1, 0.25, 0.5, 0.75, 1.0, math.nan, math.inf]))], name="h", bins=4)
    assert chart.edges == (0, 0.25, 0.5, 0.75, 1)
    assert chart.series == (("", (2, 1, 1, 2)),)  # the last bin is closed
    assert chart.missing == (2,)
    assert "6 images · 2 without a value" in figure_html(chart)


def test_whole_numbers_get_whole_bins():
    chart = histogram([("a", np.array([0, 1, 2, 3])), ("b", np.array([3, 3]))], name="h")
    assert chart.whole and chart.edges == (-0.5, 0.5, 1.5, 2.5, 3.5)
    assert chart.series == (("a", (1, 1, 1, 1)), ("b", (0, 0, 0, 2)))
    wide = histogram([("a", np.arange(10))], name="h", bins=4)  # 10 numbers in bins of 3
    assert wide.edges == (-0.5, 2.5, 5.5, 8.5, 11.5)
    assert "<title>3 to 5\n3 images (30.0 %)</title>" in figure_html(wide)


def test_logarithmic_bins_and_what_cannot_be_on_such_an_axis():
    chart = histogram([("", np.array([-5.0, 0, 1, 10, 100, 1000]))], name="h", log=True, bins=3)
    assert chart.edges == pytest.approx((-math.inf, 1, 10, 100, 1000))
    assert chart.series == (("", (2, 1, 1, 2)),)
    assert "6 images · 2 below 1.0" in figure_html(chart)
    nothing_positive = histogram([("", np.array([0.0, -1.5]))], name="h", log=True, bins=3)
    assert not nothing_positive.log and sum(nothing_positive.series[0][1]) == 2


def test_far_tails_are_gathered_and_near_ones_are_not():
    values = np.linspace(0.0, 1.0, 1001)
    near = histogram([("", values)], name="h", bins=10)
    assert near.edges == pytest.approx(np.linspace(0, 1, 11))
    far = histogram([("", np.append(values, [50.0, -70.0]))], name="h", bins=10)
    low, high = np.quantile(np.append(values, [50.0, -70.0]), [0.005, 0.995])
    assert (far.edges[0], far.edges[-1]) == (-math.inf, math.inf)
    assert far.edges[1:-1] == pytest.approx(np.linspace(low, high, 11))
    counts = far.series[0][1]
    assert (counts[0], counts[-1]) == (6, 6)  # 5 of the even ones beside each outlier
    assert sum(counts) == 1003


@pytest.mark.parametrize(
    ("value", "log", "wanted"),
    [
        (640, False, (0, 0, 9, 0, 0)),
        (640, True, (0, 0, 0, 9, 0, 0, 0)),
        (0.37, False, (0, 0, 0, 9, 0, 0, 0)),
        (-2.5, True, (0, 0, 0, 9, 0, 0, 0)),  # nothing for a logarithmic axis: an even one
        (1, False, (0, 9, 0, 0)),  # what counts from 0 is not drawn below it
        (0, True, (9, 0, 0)),
    ],
)
def test_a_constant_is_one_bar_with_room_around_it(value, log, wanted):
    chart = histogram([("", np.full(9, value))], name="h", log=log)
    assert chart.series == (("", wanted),)
    Tree(figure_html(chart))


def test_bins_follow_the_narrowest_series():
    rng = np.random.default_rng(0)
    wide, narrow = rng.uniform(0, 1, 1000), rng.uniform(0.4, 0.5, 1000)
    alone = histogram([("wide", wide)], name="h")
    spread = np.subtract(*np.quantile(wide, [0.75, 0.25]))
    assert len(alone.edges) - 1 == math.ceil((wide.max() - wide.min()) / (2 * spread / 10))  # 1000^(1/3) = 10
    assert len(histogram([("wide", wide), ("narrow", narrow)], name="h").edges) - 1 == MOST_BINS


def test_no_value_at_all():
    for values in ([], [math.nan, math.nan]):
        chart = histogram([("", np.array(values))], name="h")
        assert chart.edges == () and chart.series == (("", ()),)
        assert "No values" in figure_html(chart)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.lists(
            st.floats(-1e12, 1e12, allow_subnormal=False) | st.integers(-5, 5) | st.sampled_from([math.nan, math.inf]),
            max_size=30,
        ),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)
def test_every_value_is_counted_once_and_where_it_belongs(columns, log):
    chart = histogram([("s", np.array(column, dtype=float)) for column in columns], name="h", log=log)
    for column, (_, counts), missing in zip(columns, chart.series, chart.missing, strict=True):
        assert missing == sum(not math.isfinite(value) for value in column)
        naive = [0] * (len(chart.edges) - 1)
        for value in filter(math.isfinite, column):
            inside = [at for at, edge in enumerate(chart.edges[:-1]) if edge <= value]
            assert inside and value <= chart.edges[-1]
            naive[inside[-1]] += 1
        assert list(counts) == naive
    drawing = figure_html(chart)
    Tree(drawing)
    assert "nan" not in drawing and "inf" not in drawing


# drawings


def test_bars_by_hand():
    drawing = figure_html(Histogram("h", "", "", (0, 1, 2), (("", (1, 2)),)))
    bars = re.findall(r'<rect class="bar s0" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"/>', drawing)
    # the axis runs from 48 to 368, upright from 164 (0) to 10 (2); half a pixel between bars
    assert [tuple(map(float, bar)) for bar in bars] == [(48.5, 87, 159, 77), (208.5, 10, 159, 154)]
    assert "<title>1.0 to 2.0\n2 images (66.7 %)</title>" in drawing
    assert 'class="legend"' not in drawing


def test_several_series_are_compared_by_share():
    edges = (-math.inf, 0.0, 1.0, 2.0)
    drawing = figure_html(Histogram("h", "", "", edges, (("small", (0, 1, 1)), ("large", (0, 100, 300)))))
    steps = re.findall(r'<path class="steps (s\d)" d="([^"]*)"/>', drawing)
    # the box of what lies below stands apart (44 to 60); the others begin at 66; the axis ends at 80 %
    assert steps == [
        ("s0", "M44.0 164V164.0H60.0V164M66.0 164V67.8H217.0V67.8H368.0V164"),
        ("s1", "M44.0 164V164.0H60.0V164M66.0 164V115.9H217.0V19.6H368.0V164"),
    ]
    assert "<title>1.0 to 2.0\nsmall: 50.0 % (1)\nlarge: 75.0 % (300)</title>" in drawing
    assert re.findall(r'text-anchor="end">([^<]*)<', drawing) == ["0 %", "20 %", "40 %", "60 %", "80 %"]
    assert len(Tree(drawing).all("span", "swatch")) == 2


def test_more_series_than_colors_are_dashed():
    chart = Histogram("h", "", "", (0, 1), tuple((str(at), (1,)) for at in range(COLORS + 1)))
    assert [swatch["class"] for swatch in Tree(figure_html(chart)).all("span", "swatch")][-1] == "swatch s0 dashed"


@pytest.mark.parametrize(
    ("low", "high", "about", "wanted"),
    [
        (0, 1, 4, [0, 0.5, 1]),
        (0, 0.63, 4, [0, 0.2, 0.4, 0.6, 0.8]),
        (0, 2, 4, [0, 0.5, 1, 1.5, 2]),
        (-3, 7, 5, [-4, -2, 0, 2, 4, 6, 8]),
    ],
)
def test_steps_are_round(low, high, about, wanted):
    assert _steps(low, high, about) == pytest.approx(wanted)


def test_ticks_are_short():
    labels = [
        _tick_label(*pair)
        for pair in ((0.25, 0.05), (1500, 500), (20_000, 5_000), (1.5e6, 5e5), (0, 0.2), (-3, 1), (1e-9, 1e-9))
    ]
    assert labels == ["0.25", "1,500", "20k", "1.5M", "0.0", "−3", "1e−09"]
    assert [label for _, label in _log_ticks(0.5, 60)] == ["0.5", "1", "2", "5", "10", "20", "50"]
    assert [label for _, label in _log_ticks(0.001, 1e4)] == ["0.001", "0.01", "0.1", "1", "10", "100", "1,000", "10k"]


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e9, 1e9), st.floats(1e-3, 1e9), st.booleans())
def test_tick_labels_never_overlap(low, span, log):
    low = abs(low) + 1e-3 if log else low
    drawing = figure_html(
        Histogram("h", "", "", (low, low + span / 2 + 1e-4, low + span + 1e-3), (("", (1, 2)),), log=log)
    )
    ticks = re.findall(r'x="([\d.]+)" y="181" text-anchor="middle">([^<]*)<', drawing)
    reach = [(float(x) - 3.25 * len(label), float(x) + 3.25 * len(label)) for x, label in ticks]
    assert all(right < left for (_, right), (left, _) in pairwise(reach))
    assert all(left >= 0 and right <= 380 for left, right in reach)


# pictures


@pytest.mark.parametrize(
    ("height", "width", "side", "wanted"),
    [
        (240, 320, 160, (120, 160)),  # shrinks, aspect kept
        (20, 5000, 160, (1, 160)),  # never to nothing
        (8, 8, 160, (32, 32)),  # 4 times and no more
        (80, 40, 160, (160, 80)),  # the largest whole factor that fits
        (81, 60, 160, (81, 60)),  # twice would not fit
        (1, 1, 160, (4, 4)),
        (160, 100, 160, (160, 100)),
        (10, 10, 4, (4, 4)),
    ],
)
def test_thumbnail_sizes(height, width, side, wanted):
    jpeg = thumbnail(np.zeros((height, width, 3), np.uint8), side)
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[:2] == wanted
    assert jpeg_size(jpeg) == wanted[::-1]


def test_small_images_grow_by_whole_pixels_in_their_colors():
    rng = np.random.default_rng(1)
    small = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    big = cv2.imdecode(np.frombuffer(thumbnail(small), np.uint8), cv2.IMREAD_COLOR_RGB)
    means = big.reshape(5, 4, 7, 4, 3).mean(axis=(1, 3))
    assert np.abs(means - small).mean() < 2  # only what JPEG loses: channels not swapped, pixels not blended


def test_large_images_shrink_by_averaging():
    stripes = np.zeros((320, 320, 3), np.uint8)
    stripes[:, ::2] = (200, 100, 40)  # every other column: their average is half of it
    small = cv2.imdecode(np.frombuffer(thumbnail(stripes), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert small.shape == (160, 160, 3)
    assert np.abs(small.astype(int) - (100, 50, 20)).max() <= 3


def test_thumbnail_takes_views_and_leaves_them_alone():
    image = np.arange(30 * 40 * 3, dtype=np.uint8).reshape(30, 40, 3)
    before = image.copy()
    assert thumbnail(image[::-1, ::-1]) == thumbnail(np.ascontiguousarray(image[::-1, ::-1]))
    assert (image == before).all()


@pytest.mark.parametrize("options", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 4]])
def test_size_is_read_from_any_jpeg(options):
    jpeg = cv2.imencode(".jpg", np.zeros((37, 53, 3), np.uint8), options)[1].tobytes()
    assert jpeg_size(jpeg) == (53, 37)
    # a comment before the frame that looks like a frame itself
    comment = b"\xff\xc0\x00\x11\x08\x00\x01\x00\x01"
    assert jpeg_size(jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]) == (53, 37)


@pytest.mark.parametrize("wrong", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\n" * 9])
def test_what_is_no_jpeg_is_refused(wrong):
    with pytest.raises(ValueError, match="must be the bytes of a JPEG"):
        jpeg_size(wrong)
