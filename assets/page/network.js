// The network under the chosen method: what is frozen, trained and added, layer by layer. Told by word and mark, not by
// colour alone.

import { element } from "./dom.js";

const MARKS = { frozen: "○", trained: "●", added: "+" };

const OPEN = "tuning-fork-network-open";

// Closed it is one line: a strip of the layers and the count. The curve below must stay in sight.
export function networkCard() {
  const summary = element("summary", {}, "What is trained");
  const body = element("div", {});
  const card = element("details", { class: "tf-card tf-fold tf-network" }, [summary, body]);
  card.open = localStorage.getItem(OPEN) === "yes";
  card.addEventListener("toggle", () => localStorage.setItem(OPEN, card.open ? "yes" : "no"));
  let shown = null;
  const show = (network, method) => {
    shown = method;
    summary.replaceChildren(
      element("span", { class: "tf-fold-title" }, `What ${network.title} trains`),
      strip(network.lines),
      element("span", { class: "tf-small" }, network.summary),
    );
    body.replaceChildren(
      element("p", { class: "tf-small" }, network.card),
      element("ul", { class: "tf-layers" }, network.lines.map(line)),
      element(
        "p",
        { class: "tf-small tf-marks" },
        Object.entries(MARKS).map(([state, mark]) => element("span", {}, `${mark} ${state}`)),
      ),
      element("p", { class: "tf-small" }, network.source),
    );
  };
  return { node: card, show, of: () => shown };
}

// One box a layer: framed in colour where something is added, full where its own weights move, else empty.
function strip(lines) {
  const boxes = lines.flatMap(({ name, times, parts }) => {
    const states = new Set(parts.map(({ state }) => state));
    const state = states.has("trained") ? "trained" : states.has("added") ? "added" : "frozen";
    return Array.from({ length: times }, () => element("span", { "data-state": state, title: `${name}: ${state}` }));
  });
  return element("span", { class: "tf-strip", "aria-hidden": "true" }, boxes);
}

function line({ name, times, parts }) {
  return element("li", {}, [
    element("span", { class: "tf-layer" }, name),
    element(
      "span",
      { class: "tf-pieces" },
      parts.map((part) => piece(part, times)),
    ),
  ]);
}

function piece({ name, state, count }, times) {
  const each = times > 1 ? ` in each of ${times}` : "";
  const mark = element("span", { "aria-hidden": "true" }, `${MARKS[state]} `);
  return element(
    "span",
    {
      class: "tf-piece",
      "data-state": state,
      title: `${state}: ${name}, ${count.toLocaleString("en")} parameters${each}`,
    },
    [mark, element("span", { class: "tf-hidden" }, `${state}: `), name, " ", element("strong", {}, short(count))],
  );
}

function short(count) {
  for (const [size, word] of [
    [1e9, "B"],
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    if (count >= size) return `${(count / size).toPrecision(3)}${word}`;
  }
  return String(count);
}
