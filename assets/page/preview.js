// What the settings mean before Start: the tiles, the memory bar, and what is wrong, told at its field.

import { bytes, element } from "./dom.js";
import { awaitTable, memoryDetails } from "./memory.js";
import { networkCard } from "./network.js";
import { BeforeStart } from "./notices.js";

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
  const before = new BeforeStart();
  document.getElementById("tf-before-start")?.replaceChildren(before.node);
  let notices = [], of = "";  // the last that were known, and the model, data and task they are about
  let shown = [];  // those of them that are about what stands in the form now
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
    const known = Boolean(value.tiles);
    const now = JSON.stringify(value.of);
    if (known) [notices, of] = [value.notices, now];
    const others = !known && now !== of;  // what is known of another model, data set or task is not told of these
    shown = others ? [] : notices;
    before.show(shown, known, others ? value.problems : null);
    tell();
    toFirstProblem(value);
  };
  const tell = () => {
    if (!props.value?.problems) return;
    tellFields(props.value, shown);
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
  // a part of the form that is opened is made anew, without what was told at its fields
  let due = 0;
  const form = document.getElementById("tf-form");
  if (form) {
    new MutationObserver(() => { cancelAnimationFrame(due); due = requestAnimationFrame(tell); })
      .observe(form, { subtree: true, childList: true, attributes: true, attributeFilter: ["class", "style"] });
  }
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

const SHOWN_NOTICES = 2;

/** What is told at each field: hints, notices, problems. Only what has changed is touched: nothing flickers while a
 * person types, and nothing is announced twice. */
function tellFields(value, notices) {
  const told = new Map();
  const add = (id, kind, text) => { if (id && text) told.set(id, [...(told.get(id) ?? []), { kind, text }]); };
  for (const [id, text] of Object.entries(value.hints)) add(id, "tf-hint", text);
  const wrong = new Set(value.problems.map(({ id }) => id));
  const noted = notices.filter(({ id }) => id && !wrong.has(id));
  for (const id of new Set(noted.map((one) => one.id))) {
    const some = noted.filter((one) => one.id === id);
    for (const { message } of some.slice(0, SHOWN_NOTICES)) add(id, "tf-notice", message);
    if (some.length > SHOWN_NOTICES) add(id, "tf-notice", `${some.length - SHOWN_NOTICES} more under “Before you start”.`);
  }
  for (const { id, message } of value.problems) add(id, "tf-problem", message);
  for (const field of document.querySelectorAll("#tf-form .tf-field[id]")) tellField(field, told.get(field.id) ?? []);
}

function tellField(field, wanted) {
  const there = [...field.children].filter((one) => one.classList.contains("tf-at-field"));
  const key = (kind, text) => `${kind} ${text}`;
  const now = there.map((one) => one.dataset.key), next = wanted.map(({ kind, text }) => key(kind, text));
  const same = now.length === next.length && next.every((one, place) => one === now[place]);
  const input = field.querySelector("input, textarea, select");
  if (!same) {
    const kept = new Map(there.map((one) => [one.dataset.key, one]));
    const notes = wanted.map(({ kind, text }) => kept.get(key(kind, text)) ?? note(field.id, kind, text));
    for (const one of there) if (!notes.includes(one)) one.remove();
    for (const one of notes) field.append(one);
  }
  const bad = wanted.some(({ kind }) => kind === "tf-problem");
  const ids = [...field.children].filter((one) => one.classList.contains("tf-at-field")).map((one) => one.id).join(" ");
  if (input && (input.getAttribute("aria-describedby") ?? "") !== ids) {
    if (ids) input.setAttribute("aria-describedby", ids); else input.removeAttribute("aria-describedby");
  }
  if (input && input.hasAttribute("aria-invalid") !== bad) {
    if (bad) input.setAttribute("aria-invalid", "true"); else input.removeAttribute("aria-invalid");
  }
  if (field.classList.contains("tf-wrong") !== bad) {
    field.classList.toggle("tf-wrong", bad);
    // what is typed into and its message are both to be seen, though the form scrolls
    if (bad && input === document.activeElement) field.scrollIntoView({ block: "nearest" });
  }
}

let numbered = 0;

function note(id, kind, text) {
  const node = element("p", { class: `tf-at-field ${kind}`, id: `${id}-told-${numbered++}`, role: kind === "tf-problem" ? "alert" : null },
    kind === "tf-notice" ? [element("strong", {}, "Note: "), text] : text);
  node.dataset.key = `${kind} ${text}`;
  return node;
}

/** Start was refused: to the first field that is at fault. */
function toFirstProblem(value) {
  const first = value.pressed ? value.problems.map(({ id }) => inputOf(id)).find(Boolean) : null;
  if (!first) return;
  first.closest(".tf-field").scrollIntoView({ block: "center" });
  first.focus({ preventScroll: true });
}

function inputOf(id) { return document.getElementById(id)?.querySelector("input, textarea, select"); }
