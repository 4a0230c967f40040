// What the settings mean before Start: the tiles, the memory bar, and what is wrong, told at its field.

import { bytes, element } from "./dom.js";
import { awaitTable, memoryDetails } from "./memory.js";
import { networkCard } from "./network.js";
import { isActive, onChange } from "./live.js";
import { BeforeStart, inPageWords, sentence, termOf } from "./notices.js";

const OLD = "These numbers belong to the last settings that could be read.";

const READING_WAIT = 400;

export function mountPreview(root, props, watch, trigger, fillForm) {
  const tiles = element("div", { class: "tf-tiles" });
  const memory = element("section", { class: "tf-card tf-memory", "aria-label": "Estimated memory" });
  const network = networkCard();
  const general = element("div", { class: "tf-general", role: "alert" });
  const old = element("p", { class: "tf-old tf-small", hidden: true }, OLD);
  const details = memoryDetails((settings) => fillForm({ settings, device: props.value.outlook.device.name }));
  let stopWaiting = null,
    again = null;
  const before = new BeforeStart();
  document.getElementById("tf-before-start")?.replaceChildren(before.node);
  let notices = [],
    of = ""; // the last that were known, and the model, data and task they are about
  let shown = []; // those of them that are about what stands in the form now
  let refused = {},
    refusedOf = ""; // the methods that cannot be chosen, and the model, data and task of that
  // what is told here has its line from the beginning: the numbers under it stay where they are while a person types
  const status = element("div", { class: "tf-status" }, [general, old]);
  const live = element("div", { class: "tf-preview" }, [status, tiles, memory, network.node]);
  root.replaceChildren(live);
  const draw = () => {
    const value = props.value;
    if (!value || typeof value !== "object") return;
    live.classList.toggle("tf-stale", value.problems.length > 0 || value.reading);
    clearTimeout(again);
    if (value.reading) again = setTimeout(() => trigger("traced", {}), READING_WAIT); // a large file: how far is it now?
    if (value.tiles) tiles.replaceChildren(...value.tiles.map(tile));
    if (value.memory) {
      drawMemory(memory, value.memory);
      memory.append(details.node);
    }
    if (value.outlook) {
      details.show(value.outlook, value.device);
      stopWaiting?.();
      stopWaiting = value.outlook.pending ? awaitTable(value.outlook, value.device, () => trigger("traced", {})) : null;
    }
    if (value.network) network.show(value.network, value.method);
    network.node.hidden = network.of() !== value.method; // never the picture of another method than the chosen one
    old.hidden = value.problems.length === 0 || general.children.length > 0;
    const known = Boolean(value.tiles);
    const now = JSON.stringify(value.of);
    if (known) [notices, of] = [value.notices, now];
    if (known || now !== refusedOf || Object.keys(value.refused).length > Object.keys(refused).length) {
      [refused, refusedOf] = [value.refused, now];
    }
    const others = !known && now !== of; // what is known of another model, data set or task is not told of these
    shown = others ? [] : notices;
    before.show(shown, known, others ? value.problems.map(sentence) : null);
    tell();
    if (value.pressed) toFirstProblem(value);
  };
  const tell = () => {
    if (!props.value?.problems) return;
    tellFields(props.value, shown, refused);
    greyMethods(refused);
    tellGeneral();
  };
  // what concerns no field; and what is wrong in one that is not on the page now, or in a closed part of it
  const tellGeneral = () => {
    const { general: others, problems } = props.value ?? { general: [], problems: [] };
    // those in a part of the form that can be closed stay here when it is opened: their field may be far out of sight
    const unseen = problems.filter(({ id, within }) => within.length || !inputOf(id)?.checkVisibility());
    const told = [...others, ...unseen],
      key = JSON.stringify(told);
    if (key === general.dataset.key) return;
    general.dataset.key = key;
    general.replaceChildren(
      ...told.map((problem) =>
        element("p", { class: "tf-problem" }, [
          sentence(problem),
          ...(problem.id
            ? [
                " ",
                element(
                  "button",
                  { type: "button", class: "tf-told-open", onclick: () => reveal(problem) },
                  "Show the field",
                ),
              ]
            : []),
        ]),
      ),
    );
    old.hidden = problems.length === 0 || told.length > 0;
  };
  // a part of the form that is opened is made anew, without what was told at its fields
  let due = 0;
  const form = document.getElementById("tf-form");
  if (form) {
    new MutationObserver(() => {
      cancelAnimationFrame(due);
      due = requestAnimationFrame(tell);
    }).observe(form, { subtree: true, childList: true, attributes: true, attributeFilter: ["class", "style"] });
  }
  watch("value", draw);
  draw();
  // how long an update takes is known when a run has ended
  let going = new Set();
  onChange(({ runs }) => {
    const now = new Set(runs.filter(isActive).map((run) => run.run_id));
    const ended = runs.some((run) => going.has(run.run_id) && !now.has(run.run_id));
    going = now;
    if (ended) trigger("traced", {});
  });
}

function tile({ value, label, title }) {
  return element("div", { class: "tf-tile", title: title ?? null }, [
    element("strong", {}, value),
    element("span", {}, label),
  ]);
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
  const track = element("div", { class: "tf-track" }, bar),
    inRange = memory.high > memory.total;
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
  const legend = element(
    "ul",
    { class: "tf-legend" },
    memory.parts.map((part) => {
      const dot = element("span", { class: "tf-dot" });
      dot.style.background = part.color;
      return element("li", {}, [dot, element("span", {}, part.name), element("strong", {}, bytes(part.bytes))]);
    }),
  );
  if (inRange)
    legend.append(
      element("li", {}, [element("span", { class: "tf-band-key" }), element("span", {}, memory.band_words)]),
    );
  card.replaceChildren(
    element("div", { class: "tf-head" }, [
      element("h2", {}, "Estimated memory"),
      element("span", { class: "tf-chip tf-verdict", "data-verdict": memory.verdict }, memory.words),
    ]),
    over,
    track,
    element("div", { class: "tf-ends" }, [element("span", {}, memory.left), element("span", {}, memory.right)]),
    legend,
    element("p", { class: "tf-small" }, memory.note),
    ...memory.fixes.map((text) => element("p", { class: "tf-small" }, text)),
  );
}

const SHOWN_NOTICES = 2;

/** What is told at each field: hints, notices, problems. Only what has changed is touched: nothing flickers while a
 * person types, and nothing is announced twice. */
function tellFields(value, notices, refused) {
  const told = new Map();
  const add = (id, kind, text) => {
    if (id && text) told.set(id, [...(told.get(id) ?? []), { kind, text }]);
  };
  for (const [id, text] of Object.entries(value.hints)) add(id, "tf-hint", inPageWords(text));
  for (const text of reasons(refused)) add(METHODS, "tf-hint", text);
  const wrong = new Set(value.problems.map(({ id }) => id));
  const noted = notices.filter(({ id }) => id && !wrong.has(id));
  for (const id of new Set(noted.map((one) => one.id))) {
    const some = noted.filter((one) => one.id === id);
    for (const { message } of some.slice(0, SHOWN_NOTICES)) add(id, "tf-notice", inPageWords(message));
    if (some.length > SHOWN_NOTICES)
      add(id, "tf-notice", `${some.length - SHOWN_NOTICES} more under “Before you start”.`);
  }
  for (const problem of value.problems) add(problem.id, "tf-problem", sentence(problem));
  for (const field of document.querySelectorAll("#tf-form .tf-field[id]")) tellField(field, told.get(field.id) ?? []);
}

function tellField(field, wanted) {
  const there = [...field.children].filter((one) => one.classList.contains("tf-at-field"));
  const key = (kind, text) => `${kind} ${text}`;
  const now = there.map((one) => one.dataset.key),
    next = wanted.map(({ kind, text }) => key(kind, text));
  const same = now.length === next.length && next.every((one, place) => one === now[place]);
  const input = field.querySelector("input, textarea, select");
  if (!same) {
    const kept = new Map(there.map((one) => [one.dataset.key, one]));
    const notes = wanted.map(({ kind, text }) => kept.get(key(kind, text)) ?? note(field.id, kind, text));
    for (const one of there) if (!notes.includes(one)) one.remove();
    for (const one of notes) field.append(one);
  }
  const bad = wanted.some(({ kind }) => kind === "tf-problem");
  const ids = [...field.children]
    .filter((one) => one.classList.contains("tf-at-field"))
    .map((one) => one.id)
    .join(" ");
  if (input && (input.getAttribute("aria-describedby") ?? "") !== ids) {
    if (ids) input.setAttribute("aria-describedby", ids);
    else input.removeAttribute("aria-describedby");
  }
  if (input && input.hasAttribute("aria-invalid") !== bad) {
    if (bad) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  }
  if (field.classList.contains("tf-wrong") !== bad) {
    field.classList.toggle("tf-wrong", bad);
    // what is typed into and its message are both to be seen, though the form scrolls
    if (bad && input === document.activeElement) field.scrollIntoView({ block: "nearest" });
  }
}

let numbered = 0;

function note(id, kind, text) {
  const node = element(
    "p",
    { class: `tf-at-field ${kind}`, id: `${id}-told-${numbered++}`, role: kind === "tf-problem" ? "alert" : null },
    kind === "tf-notice" ? [element("strong", {}, "Note: "), text] : text,
  );
  node.dataset.key = `${kind} ${text}`;
  return node;
}

/** Start was refused: to the first field that is at fault, and where none is, to what is told. */
function toFirstProblem({ problems, general }) {
  if (problems.length) reveal(problems[0]);
  else if (general.length) document.querySelector(".tf-general")?.scrollIntoView({ block: "center" });
}

const TRIES = 40,
  STEP = 50;

/** Opens the parts of the form that a field is in, or where its columns are chosen, and goes there. */
async function reveal({ id, within }) {
  const columns = id === "f-data-columns" ? document.querySelector("#tf-your-data .tf-choose select") : null;
  const pressed = new Set();
  for (let tries = 0; !columns && tries < TRIES && !inputOf(id)?.checkVisibility(); tries++) {
    const part = [...document.querySelectorAll("#tf-fields button")].find(
      (one) => within.map(letters).includes(letters(one.textContent)) && one.checkVisibility() && !pressed.has(one),
    );
    if (part) {
      pressed.add(part);
      part.click();
    }
    await new Promise((resolve) => setTimeout(resolve, STEP));
  }
  if (columns) columns.closest("details").open = true;
  const input = columns ?? inputOf(id);
  if (!input) return;
  (columns ?? input.closest(".tf-field")).scrollIntoView({ block: "center" });
  input.focus({ preventScroll: true });
}

/** The words of a button without the signs beside them. */
function letters(text) {
  return text.replace(/[^\p{L}\p{N}]/gu, "");
}

function inputOf(id) {
  const field = document.getElementById(id);
  return field?.querySelector("input[type=radio]:checked") ?? field?.querySelector("input, textarea, select");
}

const METHODS = "f-method-name";

/** The methods that cannot be chosen, by their names on the page, a line a reason. */
function reasons(refused) {
  const names = new Map();
  for (const [method, why] of Object.entries(refused))
    names.set(why, [...(names.get(why) ?? []), termOf("method.name", method)]);
  return [...names].map(([why, list]) => `Greyed: ${list.join(", ")} (${why}).`);
}

/** A method that is refused cannot be pressed; the chosen one can be left, and looks refused as well. */
function greyMethods(refused) {
  for (const radio of document.querySelectorAll(`#${METHODS} input[type=radio]`)) {
    const why = refused[radio.value],
      label = radio.closest("label");
    const off = Boolean(why) && !radio.checked;
    if (radio.disabled !== off) radio.disabled = off;
    if (!label) continue;
    if (label.classList.contains("tf-refused") !== Boolean(why)) label.classList.toggle("tf-refused", Boolean(why));
    if (label.title !== (why ?? "")) label.title = why ?? "";
  }
}
