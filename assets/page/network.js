// The network under the chosen method: what is frozen, trained and added, layer by layer. Told by word and mark, not by
// colour alone.

import { element } from "./dom.js";

const MARKS = { frozen: "○", trained: "●", added: "+" };

export function drawNetwork(card, network) {
  card.replaceChildren(
    element("div", { class: "tf-head" }, [element("h2", {}, `What ${network.title} trains`),
      element("span", { class: "tf-small" }, network.summary)]),
    element("p", { class: "tf-small" }, network.card),
    element("ul", { class: "tf-layers" }, network.lines.map(line)),
    element("p", { class: "tf-small tf-marks" }, Object.entries(MARKS).map(([state, mark]) =>
      element("span", {}, `${mark} ${state}`))),
    element("p", { class: "tf-small" }, network.source));
}

function line({ name, times, parts }) {
  return element("li", {}, [
    element("span", { class: "tf-layer" }, name),
    element("span", { class: "tf-pieces" }, parts.map((part) => piece(part, times)))]);
}

function piece({ name, state, count }, times) {
  const each = times > 1 ? ` in each of ${times}` : "";
  const mark = element("span", { "aria-hidden": "true" }, `${MARKS[state]} `);
  return element("span", { class: "tf-piece", "data-state": state, title: `${state}: ${name}, ${count.toLocaleString("en")} parameters${each}` }, [
    mark, element("span", { class: "tf-hidden" }, `${state}: `), name, " ", element("strong", {}, short(count))]);
}

function short(count) {
  for (const [size, word] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (count >= size) return `${(count / size).toPrecision(3)}${word}`;
  }
  return String(count);
}
