// @ts-check
// The bar of the estimated memory: its parts on one scale with the device's limit and the uncertainty.

import { element } from "./dom.js";
import { bytes } from "./format.js";

/** @typedef {import("./shapes").MemoryBar} MemoryBar */

/**
 * @param {HTMLElement} section
 * @param {MemoryBar} memory
 */
export function drawMemoryBar(section, memory) {
  const { low, high, total } = memory;
  const percent = (/** @type {number} */ size) => `${(100 * size) / memory.scale}%`;
  const bar = element("div", { class: "tf-stack", role: "img", "aria-label": memory.summary });
  for (const part of memory.parts) {
    const node = element("span", { class: "tf-part", title: `${part.name} ${bytes(part.bytes)}` });
    node.style.flexGrow = String(part.bytes);
    node.style.background = part.color;
    bar.append(node);
  }
  bar.style.width = percent(total);
  const track = element("div", { class: "tf-track" }, bar);
  const hasBand = high > total;
  if (hasBand) {
    const band = element("span", { class: "tf-band", title: `up to ${bytes(high)}` });
    band.style.left = percent(low);
    band.style.width = percent(high - low);
    track.append(band);
  }
  const limitWords = element("span", {}, memory.limit_words);
  if (memory.limit <= memory.scale) {
    const limit = element("span", { class: "tf-limit" });
    limit.style.left = percent(memory.limit);
    track.append(limit);
    // its words begin at the line near the left end and end at it near the right one: they never leave the section
    limitWords.style.left = percent(memory.limit);
    limitWords.style.transform = `translateX(-${percent(memory.limit)})`;
  }
  const legend = element("ul", { class: "tf-legend" }, memory.parts.map(legendEntry));
  if (hasBand) {
    const key = element("span", { class: "tf-band-key" });
    legend.append(element("li", {}, [key, element("span", {}, memory.band_words)]));
  }
  section.replaceChildren(
    element("div", { class: "tf-head" }, [
      element("h2", {}, "Estimated memory"),
      element("span", { class: "tf-chip tf-verdict", "data-verdict": memory.verdict }, memory.words),
    ]),
    element("p", { class: "tf-limit-text", hidden: !memory.limit_words }, limitWords),
    track,
    element("div", { class: "tf-ends" }, [element("span", {}, memory.left), element("span", {}, memory.right)]),
    legend,
    element("p", { class: "tf-small" }, memory.note),
    ...memory.fixes.map((text) => element("p", { class: "tf-small" }, text)),
  );
}

/** @param {MemoryBar["parts"][number]} part */
function legendEntry(part) {
  const dot = element("span", { class: "tf-dot" });
  dot.style.background = part.color;
  return element("li", {}, [dot, element("span", {}, part.name), element("strong", {}, bytes(part.bytes))]);
}
