
// decisions about tiles: made in the viewer, kept by the browser, taken away as a file
{
  const bar = document.getElementById("decisions");
  const panel = document.getElementById("decide");
  const find = document.getElementById("decide-find");
  const found = document.getElementById("decide-found");
  const confirmButton = document.getElementById("decide-confirm");
  const undoButton = document.getElementById("decisions-undo");
  const labels = JSON.parse(bar.dataset.labels);
  const several = JSON.parse(bar.dataset.several);
  const key = `labelengine:${bar.dataset.key}`;
  const few = labels.length <= 10; // then each label has its key, else the likely ones of an image have
  const digits = few && labels.every((label) => /^\d$/.test(label));

  const asked = new Map(); // source -> what is asked about it, and its tiles: an image may be shown twice
  for (const item of document.querySelectorAll("li[data-source]")) {
    const source = JSON.parse(item.dataset.source);
    if (!asked.has(source)) {
      asked.set(source, {
        given: JSON.parse(item.dataset.given).map((at) => labels[at]),
        likely: new Map(JSON.parse(item.dataset.likely).map(([at, share]) => [labels[at], share / 1000])),
        items: [],
      });
    }
    asked.get(source).items.push(item);
    const caption = item.querySelector(".caption");
    if (caption) caption.dataset.idle = caption.textContent;
  }
  const sourceOf = (tile) => JSON.parse(tile.closest("li").dataset.source || "null");

  const decided = new Map(); // source -> labels, in the order of the decisions
  const past = []; // for each step, what to put back: [source, labels or undefined]
  let kept = true;
  let taken = true; // away, as a file

  // what cannot be seen is spelled out, as everywhere on the page
  const seen = (raw) => raw.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) => (
    "\u200c\u200d".includes(character) ? character : `\\u${character.codePointAt(0).toString(16).padStart(4, "0")}`));
  const same = (one, other) => one.length === other.length && one.every((label) => other.includes(label));
  const listed = (names) => names.map(seen).join(", ");
  const verdict = (source) => {
    if (!decided.has(source)) return "";
    const chosen = decided.get(source);
    return !chosen.length ? "rejected" : same(chosen, asked.get(source).given) ? "confirmed" : "corrected";
  };
  const MARKS = { confirmed: "✓", corrected: "→", rejected: "✕" };

  function mark(source) {
    const is = verdict(source);
    for (const item of asked.get(source).items) {
      const caption = item.querySelector(".caption");
      const words = is === "corrected" ? listed(decided.get(source)) : is;
      item.className = is;
      if (is) item.dataset.mark = MARKS[is];
      else delete item.dataset.mark;
      if (caption) caption.textContent = is && is !== "confirmed" ? words : caption.dataset.idle;
      const tile = item.querySelector(".tile");
      if (is) tile.setAttribute("aria-description", words);
      else tile.removeAttribute("aria-description");
    }
  }

  function tell() {
    const counts = { confirmed: 0, corrected: 0, rejected: 0 };
    for (const source of decided.keys()) counts[verdict(source)] += 1;
    const parts = Object.entries(counts).filter(([, count]) => count).map(([is, count]) => `${count} ${is}`);
    if (decided.size && !kept) parts.push("this browser keeps nothing: download before you close the page");
    bar.querySelector(".count").textContent = decided.size
      ? `${decided.size} decided: ${parts.join(", ")}`
      : "Click an image to confirm, correct or reject its label";
    const advice = bar.querySelector(".advice");
    if (advice) advice.hidden = !decided.size;
    document.getElementById("decisions-download").disabled = !decided.size;
    undoButton.disabled = !past.length;
    for (const button of document.querySelectorAll(".all")) {
      const rest = undecidedIn(button.closest("section"));
      button.hidden = !rest.length;
      button.textContent = `Confirm ${rest.length === 1 ? "it" : `these ${rest.length}`}`;
    }
  }

  function apply(changes) {
    for (const [source, chosen] of changes) {
      decided.delete(source);
      if (chosen) decided.set(source, chosen);
      mark(source);
    }
    taken = !decided.size;
    try {
      localStorage.setItem(key, JSON.stringify([...decided]));
      kept = true;
    } catch {
      kept = false;
    }
    tell();
  }

  function decide(changes) {
    past.push(changes.map(([source]) => [source, decided.get(source)]));
    apply(changes);
  }

  function undo() {
    const changes = past.pop();
    if (!changes) return;
    apply(changes);
    const at = tiles.findIndex((tile) => sourceOf(tile) === changes[0][0]);
    if (viewer.open && at >= 0) show(at);
    else if (viewer.open) draw();
  }

  function recall() {
    let stored = [];
    try {
      stored = JSON.parse(localStorage.getItem(key) || "[]");
    } catch {
      kept = false;
    }
    const before = [...decided.keys()];
    decided.clear();
    past.length = 0;
    for (const [source, chosen] of Array.isArray(stored) ? stored : []) {
      if (!asked.has(source) || !Array.isArray(chosen)) continue;
      decided.set(source, chosen);
      past.push([[source, undefined]]);
    }
    for (const source of new Set([...before, ...decided.keys()])) mark(source);
    tell();
  }

  // the panel beside the picture

  const current = () => (tiles[place] ? sourceOf(tiles[place]) : null);
  const chosenOf = (source) => decided.get(source) || asked.get(source).given;
  const known = () => [...new Set([...labels, ...[...decided.values()].flat()])];

  function chip(label, { number, share, pressed, words = seen(label) }) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "chip";
    button.title = seen(label);
    if (pressed !== undefined) button.setAttribute("aria-pressed", pressed);
    if (number !== undefined) {
      button.dataset.key = number;
      if (number !== label) button.append(Object.assign(document.createElement("kbd"), { textContent: number }));
    }
    button.append(Object.assign(document.createElement("bdi"), { textContent: words }));
    if (share !== undefined) {
      button.style.setProperty("--part", share);
      const percent = share >= 0.995 ? ">99 %" : share < 0.005 ? "<1 %" : `${Math.round(100 * share)} %`;
      button.append(Object.assign(document.createElement("span"), { className: "share", textContent: percent }));
    }
    button.addEventListener("click", () => choose(label));
    return button;
  }

  function draw() {
    const source = current();
    panel.hidden = source === null;
    viewer.classList.toggle("deciding", !panel.hidden);
    if (panel.hidden) return;
    const { given, likely } = asked.get(source);
    const is = verdict(source);
    const chosen = is === "rejected" ? [] : chosenOf(source);
    const offered = few ? known() : [...new Set([...[...likely.keys()].slice(0, 9), ...given, ...chosen])];
    const numbers = offered.map((label, at) => (digits ? (/^\d$/.test(label) ? label : undefined) : at < 9 ? `${at + 1}` : at === 9 ? "0" : undefined));
    const list = document.getElementById("decide-labels");
    list.replaceChildren(...offered.map((label, at) => (
      chip(label, { number: numbers[at], share: likely.get(label), pressed: chosen.includes(label) }))));
    list.style.setProperty("--chip", offered.some((label) => label.length > 12) ? "100%" : "144px");
    const caption = tiles[place].closest("li").querySelector(".caption");
    if (caption) part("caption").textContent = caption.dataset.idle;
    const state = document.getElementById("decide-state");
    state.className = is;
    state.textContent = {
      "": `Labeled automatically: ${listed(given)}`,
      confirmed: `Confirmed: ${listed(given)}`,
      corrected: `Corrected: ${listed(given)} → ${listed(chosen)}`,
      rejected: `Rejected: ${listed(given)}`,
    }[is];
    panel.classList.toggle("decided", Boolean(is));
    document.getElementById("decide-clear").disabled = !is;
    confirmButton.firstElementChild.textContent = is ? "Next" : "Confirm";
    find.value = "";
    search();
    confirmButton.focus();
  }

  function advance() {
    for (let step = 1; step <= tiles.length; step += 1) {
      const at = (place + step) % tiles.length;
      const source = sourceOf(tiles[at]);
      if (source !== null && !decided.has(source)) {
        show(at);
        return;
      }
    }
    draw(); // all are decided
  }

  function choose(label) {
    const source = current();
    if (!several) {
      decide([[source, [label]]]);
      advance();
      return;
    }
    const before = verdict(source) === "rejected" ? [] : chosenOf(source);
    decide([[source, before.includes(label) ? before.filter((each) => each !== label) : [...before, label]]]);
    draw();
  }

  function confirmIt() {
    const source = current();
    if (!decided.has(source)) decide([[source, asked.get(source).given]]);
    advance();
  }

  function reject() {
    decide([[current(), []]]);
    advance();
  }

  function search() {
    const wanted = find.value.trim();
    const folded = wanted.toLowerCase();
    const rank = (label) => (label === wanted ? 0 : label.toLowerCase() === folded ? 1 : label.toLowerCase().startsWith(folded) ? 2 : 3);
    const names = wanted ? known() : [];
    const fitting = names.filter((label) => label.toLowerCase().includes(folded)).sort((a, b) => rank(a) - rank(b)).slice(0, 8);
    const chips = fitting.map((label) => chip(label, {}));
    if (wanted && !names.includes(wanted)) chips.push(chip(wanted, { words: `New label: ${seen(wanted)}` }));
    if (chips.length) chips[0].classList.add("first");
    found.replaceChildren(...chips);
  }

  viewer.addEventListener("show", draw);
  find.addEventListener("input", search);
  find.addEventListener("keydown", (event) => {
    const chips = [...found.children];
    const at = chips.findIndex((each) => each.classList.contains("first"));
    if (event.key === "Enter" && at >= 0) {
      chips[at].click();
    } else if (event.key === "Escape" && find.value) {
      draw();
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const next = (at + (event.key === "ArrowDown" ? 1 : -1) + chips.length) % chips.length;
      chips.forEach((each, place) => each.classList.toggle("first", place === next));
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  });
  viewer.addEventListener("keydown", (event) => {
    if (panel.hidden || event.target === find || event.ctrlKey || event.metaKey || event.altKey) return;
    const chosen = panel.querySelector(`#decide-labels [data-key="${/^\d$/.test(event.key) ? event.key : "none"}"]`);
    if (chosen) chosen.click();
    else if (event.key === "x") reject();
    else if (event.key === "u") undo();
    else if (event.key === "/") find.focus();
    else if (event.key === "Enter" && !event.target.closest("button")) confirmIt();
    else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || event.shiftKey || event.target.closest("input")) return;
    event.preventDefault();
    undo();
  });
  confirmButton.addEventListener("click", confirmIt);
  document.getElementById("decide-reject").addEventListener("click", reject);
  document.getElementById("decide-clear").addEventListener("click", () => {
    decide([[current(), undefined]]);
    draw();
  });

  // whole grids of a card at once, when a look is enough

  const undecidedIn = (part) => {
    const sources = [...part.querySelectorAll("li[data-source]")].map((item) => JSON.parse(item.dataset.source));
    return sources.filter((source) => !decided.has(source));
  };
  for (const heading of document.querySelectorAll(".card h4")) {
    if (!heading.parentElement.querySelector("li[data-source]")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "all";
    button.addEventListener("click", () => {
      decide(undecidedIn(heading.parentElement).map((source) => [source, asked.get(source).given]));
    });
    heading.append(button);
  }

  // the bar

  undoButton.addEventListener("click", undo);
  bar.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("decisions-download").addEventListener("click", () => {
    const lines = [...decided].map(([source, chosen]) => `${JSON.stringify({ source, labels: chosen })}\n`);
    const url = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
    Object.assign(document.createElement("a"), { href: url, download: "decisions.jsonl" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    taken = true;
  });
  addEventListener("storage", (event) => {
    if (event.key !== key) return; // another window with this page
    recall();
    if (viewer.open) draw();
  });
  addEventListener("beforeunload", (event) => {
    if (!kept && !taken) event.preventDefault();
  });

  recall();
  bar.hidden = !asked.size;
}
