"use strict";

// a tile opens in the viewer; its neighbors are the tiles of the same card or gallery
const viewer = document.getElementById("viewer");
const picture = viewer.querySelector("img");
const part = (name) => document.getElementById(`viewer-${name}`);
let tiles = [];
let place = 0;

function show(at) {
  place = (at + tiles.length) % tiles.length;
  const tile = tiles[place];
  const image = tile.querySelector("img");
  const caption = tile.parentElement.querySelector(".caption");
  const card = tile.closest(".card");
  picture.src = image.src;
  picture.alt = image.alt;
  picture.className = image.className;
  part("name").textContent = image.alt;
  part("caption").textContent = [caption, card && card.querySelector("h3 bdi")]
    .map((element) => (element ? element.textContent : "")).filter(Boolean).join(" · ");
  part("place").textContent = `${place + 1} of ${tiles.length}`;
  viewer.dispatchEvent(new Event("show"));
}

document.addEventListener("click", (event) => {
  const tile = event.target.closest("button.tile");
  if (tile) {
    tiles = [...(tile.closest(".card, .gallery") || document).querySelectorAll("li:not([hidden]) > button.tile")];
    show(tiles.indexOf(tile));
    viewer.showModal();
  } else if (event.target === viewer) {
    viewer.close();
  }
});
part("previous").addEventListener("click", () => show(place - 1));
part("next").addEventListener("click", () => show(place + 1));
viewer.addEventListener("keydown", (event) => {
  if (event.target.matches("input")) return;
  if (event.key === "ArrowLeft") show(place - 1);
  if (event.key === "ArrowRight") show(place + 1);
});
viewer.addEventListener("close", () => tiles[place] && tiles[place].focus());

// a long gallery begins folded
for (const gallery of document.querySelectorAll(".gallery .tiles")) {
  if (gallery.children.length <= 40) continue;
  const more = document.createElement("button");
  more.type = "button";
  more.className = "more";
  more.textContent = `Show all ${gallery.children.length.toLocaleString("en")}`;
  more.addEventListener("click", () => {
    gallery.classList.remove("folded");
    more.remove();
  });
  gallery.classList.add("folded");
  gallery.after(more);
}

// a chart reads out the bin that the pointer or the arrow keys are at
for (const chart of document.querySelectorAll(".chart svg")) {
  const readout = chart.parentElement.querySelector(".readout");
  const idle = readout.textContent;
  const bins = [...chart.querySelectorAll(".bin")];
  const words = bins.map((bin) => {
    const title = bin.querySelector("title");
    title.remove();  // or the browser would say the same again
    return title.textContent.split("\n");
  });
  const values = [...chart.parentElement.querySelectorAll(".legend .value")];
  let at = -1;
  const read = (next) => {
    if (bins[at]) bins[at].classList.remove("on");
    at = next;
    if (bins[at]) bins[at].classList.add("on");
    const [range, ...each] = at < 0 ? [] : words[at];
    readout.textContent = at < 0 ? idle : [range, ...(values.length ? [] : each)].join(": ");
    values.forEach((value, series) => {
      value.textContent = at < 0 ? "" : each[series].slice(each[series].lastIndexOf(": ") + 2);
    });
    readout.classList.toggle("on", at >= 0);
  };
  chart.addEventListener("pointermove", (event) => read(bins.indexOf(event.target)));
  chart.addEventListener("pointerdown", (event) => read(bins.indexOf(event.target)));
  chart.addEventListener("pointerleave", () => read(-1));
  chart.addEventListener("blur", () => read(-1));
  chart.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    read(at < 0 ? (step > 0 ? 0 : bins.length - 1) : Math.min(bins.length - 1, Math.max(0, at + step)));
  });
}

// with many cards: find one by its number or name, and order them
const controls = document.getElementById("controls");
if (controls) {
  const find = document.getElementById("find");
  const order = document.getElementById("order");
  const lists = [document.querySelector(".overview ul"), document.querySelector(".cards")];
  const by = {
    number: (a, b) => a.dataset.number - b.dataset.number,
    size: (a, b) => b.dataset.size - a.dataset.size || a.dataset.number - b.dataset.number,
    smallest: (a, b) => a.dataset.size - b.dataset.size || a.dataset.number - b.dataset.number,
  };
  controls.hidden = false;
  controls.addEventListener("submit", (event) => event.preventDefault());
  order.addEventListener("change", () => {
    for (const list of lists) list.append(...[...list.children].sort(by[order.value]));
  });
  find.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    const isNumber = "numbered" in controls.dataset && /^\d+$/.test(wanted);
    const fits = (card) => (isNumber ? card.dataset.number === wanted : card.dataset.find.includes(wanted));
    for (const list of lists) for (const card of list.children) card.hidden = !fits(card);
    document.getElementById("nothing-found").hidden = [...lists[1].children].some((card) => !card.hidden);
  });
}
