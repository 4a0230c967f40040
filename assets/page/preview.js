// What the settings mean before Start: the tiles, the memory bar, and what is wrong, told at its field.

import { bytes, element } from "./dom.js";
import { awaitTable, memoryDetails } from "./memory.js";
import { networkCard } from "./network.js";

const OLD = "These numbers are of the last settings that could be read; the form marks what to change.";

const READING_WAIT = 400;

export function mountPreview(root, props, watch, trigger, fillForm) {
  const tiles = element("div", { class: "tf-tiles" });
  const memory = element("section", { class: "tf-card tf-memory", "aria-label": "Estimated memory" });
  const network = networkCard();
  const general = element("div", { class: "tf-general", role: "alert" });
  const old = element("p", { class: "tf-old tf-small", hidden: true }, OLD);
  const details = memoryDetails((settings) => fillForm({ settings, device: props.value.outlook.device.name }));
  let stopWaiting = null, again = null;
  const live = element("div", { class: "tf-preview" }, [general, old, tiles, memory, network.node]);
  root.replaceChildren(live);
  const draw = () => {
    const value = props.value;
    if (!value || typeof value !== "object") return;
    live.classList.toggle("tf-stale", value.problems.length > 0 || value.reading);
    clearTimeout(again);
    if (value.reading) again = setTimeout(() => trigger("traced", {}), READING_WAIT);  // a large file: how far is it now?
    if (value.tiles) tiles.replaceChildren(...value.tiles.map(tile));
    if (value.memory) { drawMemory(memory, value.memory); memory.append(details.node); }
    if (value.outlook) {
      details.show(value.outlook);
      stopWaiting?.();
      stopWaiting = value.outlook.pending ? awaitTable(value.outlook, value.device, () => trigger("traced", {})) : null;
    }
    if (value.network) network.show(value.network);
    old.hidden = value.problems.length === 0;
    tellFields(value);
    tellGeneral();
  };
  // what concerns no field; and what is wrong in one that is not on the page now, or in a closed part of it
  const tellGeneral = () => {
    const { general: texts, problems } = props.value ?? { general: [], problems: [] };
    const unseen = problems.filter(({ id }) => !inputOf(id)?.checkVisibility()).map(({ message }) => message);
    const told = [...texts, ...unseen];
    if (told.join() !== [...general.children].map((one) => one.textContent).join()) {
      general.replaceChildren(...told.map((text) => element("p", { class: "tf-problem" }, text)));
    }
  };
  document.getElementById("tf-form")?.addEventListener("click", () => setTimeout(tellGeneral, 50));
  watch("value", draw);
  draw();
}

function tile({ value, label, title }) {
  return element("div", { class: "tf-tile", title: title ?? null }, [
    element("strong", {}, value), element("span", {}, label)]);
}

function drawMemory(card, memory) {
  const share = (count) => `${(100 * count) / memory.scale}%`;
  const bar = element("div", { class: "tf-stack", role: "img", "aria-label": memory.summary });
  for (const part of memory.parts) {
    const node = element("span", { class: "tf-part", title: `${part.name} ${bytes(part.bytes)}` });
    node.style.flexGrow = part.bytes;
    node.style.background = part.color;
    bar.append(node);
  }
  bar.style.width = share(memory.total);
  const track = element("div", { class: "tf-track" }, bar), inRange = memory.high > memory.total;
  if (inRange) {
    const band = element("span", { class: "tf-band", title: `up to ${bytes(memory.high)}` });
    band.style.left = share(memory.low);
    band.style.width = share(memory.high - memory.low);
    track.append(band);
  }
  const over = element("p", { class: "tf-limit-text" }, element("span", {}, memory.limit_words));
  if (memory.limit <= memory.scale) {
    const limit = element("span", { class: "tf-limit" });
    limit.style.left = share(memory.limit);
    track.append(limit);
    // its words begin at the line near the left end and end at it near the right one: they never leave the card
    over.firstChild.style.left = share(memory.limit);
    over.firstChild.style.transform = `translateX(-${share(memory.limit)})`;
  }
  over.hidden = !memory.limit_words;
  const legend = element("ul", { class: "tf-legend" }, memory.parts.map((part) => {
    const dot = element("span", { class: "tf-dot" });
    dot.style.background = part.color;
    return element("li", {}, [dot, element("span", {}, part.name), element("strong", {}, bytes(part.bytes))]);
  }));
  if (inRange) legend.append(element("li", {}, [element("span", { class: "tf-band-key" }), element("span", {}, memory.band_words)]));
  card.replaceChildren(
    element("div", { class: "tf-head" }, [element("h2", {}, "Estimated memory"),
      element("span", { class: "tf-chip tf-verdict", "data-verdict": memory.verdict }, memory.words)]),
    over,
    track,
    element("div", { class: "tf-ends" }, [element("span", {}, memory.left), element("span", {}, memory.right)]),
    legend,
    element("p", { class: "tf-small" }, memory.note),
    ...memory.fixes.map((text) => element("p", { class: "tf-small" }, text)));
}

function tellFields(value) {
  for (const old of document.querySelectorAll("#tf-form .tf-at-field")) old.remove();
  for (const input of document.querySelectorAll("#tf-form [aria-invalid]")) {
    input.removeAttribute("aria-invalid");
    input.removeAttribute("aria-describedby");
    input.closest(".tf-field")?.classList.remove("tf-wrong");
  }
  for (const [id, text] of Object.entries(value.hints)) attach(id, text, "tf-hint");
  let first = null;
  for (const { id, message } of value.problems) {
    const input = attach(id, message, "tf-problem");
    if (!input) continue;
    input.setAttribute("aria-invalid", "true");
    input.closest(".tf-field")?.classList.add("tf-wrong");
    first ??= input;
    // what is typed into and its message are both to be seen, though the form scrolls
    if (input === document.activeElement) input.closest(".tf-field")?.scrollIntoView({ block: "nearest" });
  }
  if (value.pressed && first) {
    first.closest(".tf-field").scrollIntoView({ block: "center" });
    first.focus({ preventScroll: true });
  }
}

function inputOf(id) { return document.getElementById(id)?.querySelector("input, textarea, select"); }

function attach(id, text, kind) {
  const field = document.getElementById(id);
  if (!field) return null;
  const note = element("p", { class: `tf-at-field ${kind}`, id: `${id}-${kind}`, role: kind === "tf-problem" ? "alert" : null }, text);
  field.append(note);
  const input = inputOf(id);
  input?.setAttribute("aria-describedby", note.id);
  return input;
}
