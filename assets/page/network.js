// @ts-check
// The network under the chosen method: what is frozen, trained and added, layer by layer, by word and mark and not by
// colour alone.

import { element } from "./dom.js";
import { count, shortCount } from "./format.js";

/** @typedef {import("./shapes").NetworkView} NetworkView */
/** @typedef {import("./shapes").NetworkLine} NetworkLine */
/** @typedef {import("./shapes").NetworkPart} NetworkPart */

/** @type {Record<string, string>} */
const MARKS = { frozen: "○", trained: "●", added: "+" };
const OPEN = "tuning-fork-network-open";

/** Closed it is one line, a strip of the layers and the count: the curve below must stay in sight. */
export class NetworkSection {
  constructor() {
    this.summary = element("summary", {}, "What is trained");
    this.body = element("div", {});
    this.node = element("details", { class: "tf-card tf-fold tf-network" }, [this.summary, this.body]);
    this.node.open = localStorage.getItem(OPEN) === "yes";
    this.node.addEventListener("toggle", () => localStorage.setItem(OPEN, this.node.open ? "yes" : "no"));
    this.method = "";
  }

  /**
   * @param {NetworkView} network
   * @param {string} method that it is a picture of
   */
  draw(network, method) {
    this.method = method;
    this.summary.replaceChildren(
      element("span", { class: "tf-fold-title" }, `What ${network.title} trains`),
      strip(network.lines),
      element("span", { class: "tf-small" }, network.summary),
    );
    const marks = Object.entries(MARKS).map(([state, mark]) => element("span", {}, `${mark} ${state}`));
    this.body.replaceChildren(
      element("p", { class: "tf-small" }, network.card),
      element("ul", { class: "tf-layers" }, network.lines.map(layer)),
      element("p", { class: "tf-small tf-marks" }, marks),
      element("p", { class: "tf-small" }, network.source),
    );
  }

  /**
   * Hides the picture of another method than the chosen one.
   * @param {string} method
   */
  showOnlyFor(method) {
    this.node.hidden = this.method !== method;
  }
}

/**
 * One box a layer: framed in colour where something is added, full where its own weights move, else empty.
 * @param {NetworkLine[]} lines
 */
function strip(lines) {
  const boxes = lines.flatMap(({ name, times, parts }) => {
    const state = layerState(parts);
    const attributes = { "data-state": state, title: `${name}: ${state}` };
    return Array.from({ length: times }, () => element("span", attributes));
  });
  return element("span", { class: "tf-strip", "aria-hidden": "true" }, boxes);
}

/** @param {NetworkPart[]} parts */
export function layerState(parts) {
  const states = new Set(parts.map(({ state }) => state));
  if (states.has("trained")) return "trained";
  return states.has("added") ? "added" : "frozen";
}

/** @param {NetworkLine} line */
function layer({ name, times, parts }) {
  return element("li", {}, [
    element("span", { class: "tf-layer" }, name),
    element(
      "span",
      { class: "tf-layer-parts" },
      parts.map((part) => layerPart(part, times)),
    ),
  ]);
}

/**
 * @param {NetworkPart} part
 * @param {number} times how many layers are alike
 */
function layerPart({ name, state, count: parameters }, times) {
  const each = times > 1 ? ` in each of ${times}` : "";
  const title = `${state}: ${name}, ${count(parameters)} parameters${each}`;
  return element("span", { class: "tf-layer-part", "data-state": state, title }, [
    element("span", { "aria-hidden": "true" }, `${MARKS[state]} `),
    element("span", { class: "tf-hidden" }, `${state}: `),
    name,
    " ",
    element("strong", {}, shortCount(parameters)),
  ]);
}
