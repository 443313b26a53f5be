
// why an image is hard: beside its picture, and as a filter of its gallery
{
  const examples = document.getElementById("examples");
  const words = JSON.parse(examples.dataset.words);
  const pictures = [...examples.children];
  const panel = document.getElementById("why");
  const seen = (raw) => raw.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) => (
    "\u200c\u200d".includes(character) ? character : `\\u${character.codePointAt(0).toString(16).padStart(4, "0")}`));
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const whyOf = (item) => JSON.parse(item.dataset.why);

  viewer.addEventListener("show", () => {
    const item = tiles[place].closest("li");
    panel.hidden = !item.dataset.why;
    viewer.classList.toggle("explaining", !panel.hidden);
    if (panel.hidden) return;
    const why = whyOf(item);
    document.getElementById("why-told").textContent = why.told;
    document.getElementById("why-reasons").replaceChildren(...why.reasons.map(([number, share]) => {
      const line = make("li", {}, make("b", { textContent: number }), make("span", { textContent: words[number] }));
      if (share) line.append(make("span", { className: "share", textContent: `${Math.round(100 * share)} %` }));
      line.style.setProperty("--part", share);
      return line;
    }));
    const near = document.getElementById("why-near");
    near.replaceChildren(...why.near.map((at) => pictures[at].cloneNode(true)));
    near.hidden = !why.near.length;
  });

  for (const gallery of document.querySelectorAll(".gallery")) {
    const list = gallery.querySelector(".tiles");
    const hard = [...gallery.querySelectorAll("li[data-why]")];
    if (!hard.length) continue;
    const items = [...list.children];
    const whys = new Map(hard.map((item) => [item, whyOf(item)]));
    const tally = (keys) => {
      const counts = new Map();
      for (const key of keys) counts.set(key, (counts.get(key) || 0) + 1);
      return [...counts].sort((one, other) => other[1] - one[1]);
    };
    const all = `all ${items.length}`;
    const select = (name, options) => {
      const box = make("select", {}, make("option", { value: "", textContent: all }),
        ...options.map(([value, text]) => make("option", { value, textContent: text })));
      box.addEventListener("change", draw);
      return [make("label", { textContent: `${name} ` }, box), box];
    };
    const reasons = tally(hard.flatMap((item) => whys.get(item).reasons.map(([number]) => number)));
    const labels = tally(hard.flatMap((item) => [...new Set(whys.get(item).labels)]));
    const [reasonField, reason] = select("Reason", reasons.map(([number, count]) => [number, `${number} ${words[number]} (${count})`]));
    const [labelField, label] = select("Label", labels.map(([name, count]) => [name, `${seen(name)} (${count})`]));
    const take = make("button", { type: "button", className: "take" });
    const chosen = () => items.filter((item) => !item.hidden && item.dataset.line);
    function draw() {
      for (const item of items) {
        const why = whys.get(item) || { reasons: [], labels: [] };
        item.hidden = Boolean((reason.value && !why.reasons.some(([number]) => `${number}` === reason.value))
          || (label.value && !why.labels.includes(label.value)));
      }
      if (reason.value || label.value) {
        list.classList.remove("folded");
        const more = gallery.querySelector(".more");
        if (more) more.remove();
      }
      const count = chosen().length;
      const all = !reason.value && !label.value;
      take.textContent = `Download ${all ? "hard ones" : "the selection"} as a manifest (${count})`;
      take.disabled = !count;
    }
    take.addEventListener("click", () => {
      const lines = chosen().map((item) => `${item.dataset.line}\n`);
      const url = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
      Object.assign(document.createElement("a"), { href: url, download: "selection.manifest" }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    });
    const form = make("form", { className: "controls" }, reasonField, labelField);
    if (chosen().length) form.append(take);
    form.addEventListener("submit", (event) => event.preventDefault());
    list.before(form);
    draw();
  }
}
