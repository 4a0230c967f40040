// @ts-check
// What stands at the fields of the form: hints, notices and problems, greyed methods, and the way to a field at fault.

import { element, sleep } from "./dom.js";
import { inPageWords, sentence, termOf } from "./setting_names.js";

/** @typedef {import("./shapes").FieldProblem} FieldProblem */
/** @typedef {import("./shapes").PlacedNotice} PlacedNotice */
/** @typedef {import("./shapes").PreviewValue} PreviewValue */

/**
 * One text at a field; `kind` is its class.
 * @typedef {{ kind: "tf-hint" | "tf-notice" | "tf-problem", text: string }} Note
 */

const METHODS = "f-method-name";
const SHOWN_NOTICES = 2;
const OPENING_TRIES = 40;
const OPENING_STEP = 50; // milliseconds

/**
 * Draws what there is to say at each field. Only what has changed is touched: nothing flickers while a person types,
 * and nothing is announced twice.
 * @param {PreviewValue} preview
 * @param {PlacedNotice[]} notices
 * @param {Record<string, string>} refused reasons by method
 */
export function drawFieldNotes(preview, notices, refused) {
  const notes = notesByField(preview, notices, refused);
  const fields = /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("#tf-form .tf-field[id]"));
  for (const field of fields) drawNotes(field, notes.get(field.id) ?? []);
}

/**
 * The texts at each field, by its id; a field with a problem has no notices beside it.
 * @param {Pick<PreviewValue, "hints" | "problems">} preview
 * @param {PlacedNotice[]} notices
 * @param {Record<string, string>} refused
 */
export function notesByField(preview, notices, refused) {
  /** @type {Map<string, Note[]>} */
  const notes = new Map();
  const add = (/** @type {string} */ id, /** @type {Note["kind"]} */ kind, /** @type {string} */ text) => {
    if (id && text) notes.set(id, [...(notes.get(id) ?? []), { kind, text }]);
  };
  for (const [id, text] of Object.entries(preview.hints)) add(id, "tf-hint", inPageWords(text));
  for (const text of refusalReasons(refused)) add(METHODS, "tf-hint", text);
  const wrong = new Set(preview.problems.map(({ id }) => id));
  for (const id of new Set(notices.map((notice) => notice.id))) {
    if (!id || wrong.has(id)) continue;
    const some = notices.filter((notice) => notice.id === id);
    for (const { message } of some.slice(0, SHOWN_NOTICES)) add(id, "tf-notice", inPageWords(message));
    const more = some.length - SHOWN_NOTICES;
    if (more > 0) add(id, "tf-notice", `${more} more under “Before you start”.`);
  }
  for (const problem of preview.problems) add(problem.id, "tf-problem", sentence(problem));
  return notes;
}

/** @param {Note} note */
function keyOf({ kind, text }) {
  return `${kind} ${text}`;
}

/** @param {HTMLElement} field */
function notesAt(field) {
  const children = /** @type {HTMLElement[]} */ ([...field.children]);
  return children.filter((node) => node.classList.contains("tf-at-field"));
}

/**
 * @param {HTMLElement} field
 * @param {Note[]} notes
 */
function drawNotes(field, notes) {
  const before = notesAt(field);
  const keys = notes.map(keyOf);
  if (before.length !== keys.length || before.some((node, index) => node.dataset.key !== keys[index])) {
    const byKey = new Map(before.map((node) => [node.dataset.key, node]));
    const nodes = notes.map((note) => byKey.get(keyOf(note)) ?? noteNode(field.id, note));
    for (const node of before) if (!nodes.includes(node)) node.remove();
    field.append(...nodes);
  }
  const isWrong = notes.some(({ kind }) => kind === "tf-problem");
  const input = /** @type {HTMLElement | null} */ (field.querySelector("input, textarea, select"));
  if (input) describe(input, field, isWrong);
  if (field.classList.contains("tf-wrong") === isWrong) return;
  field.classList.toggle("tf-wrong", isWrong);
  // what is typed into and its message are both to be seen, though the form scrolls
  if (isWrong && input === document.activeElement) field.scrollIntoView({ block: "nearest" });
}

/**
 * Ties an input to the notes at its field, for people who cannot see them.
 * @param {HTMLElement} input
 * @param {HTMLElement} field
 * @param {boolean} isWrong
 */
function describe(input, field, isWrong) {
  const ids = notesAt(field).map((node) => node.id);
  setAttribute(input, "aria-describedby", ids.length ? ids.join(" ") : null);
  setAttribute(input, "aria-invalid", isWrong ? "true" : null);
}

/**
 * Sets an attribute only where it is another; null takes it away.
 * @param {HTMLElement} node
 * @param {string} name
 * @param {string | null} value
 */
function setAttribute(node, name, value) {
  if (node.getAttribute(name) === value) return;
  if (value === null) node.removeAttribute(name);
  else node.setAttribute(name, value);
}

let nodesMade = 0;

/**
 * @param {string} fieldId
 * @param {Note} note
 */
function noteNode(fieldId, { kind, text }) {
  const role = kind === "tf-problem" ? "alert" : null;
  const attributes = { class: `tf-at-field ${kind}`, id: `${fieldId}-note-${nodesMade}`, role };
  nodesMade += 1;
  const node = element("p", attributes, kind === "tf-notice" ? [element("strong", {}, "Note: "), text] : text);
  node.dataset.key = keyOf({ kind, text });
  return node;
}

/**
 * The methods that cannot be chosen, by their names on the page, a sentence a reason.
 * @param {Record<string, string>} refused
 */
export function refusalReasons(refused) {
  /** @type {Map<string, string[]>} */
  const names = new Map();
  for (const [method, reason] of Object.entries(refused)) {
    names.set(reason, [...(names.get(reason) ?? []), termOf("method.name", method)]);
  }
  return [...names].map(([reason, methods]) => `Greyed: ${methods.join(", ")} (${reason}).`);
}

/**
 * Greys the methods that are refused. They cannot be pressed; the chosen one can be left, and looks refused as well.
 * @param {Record<string, string>} refused
 */
export function greyMethods(refused) {
  const radios = /** @type {NodeListOf<HTMLInputElement>} */ (
    document.querySelectorAll(`#${METHODS} input[type=radio]`)
  );
  for (const radio of radios) {
    const reason = refused[radio.value] ?? "";
    const isOff = Boolean(reason) && !radio.checked;
    if (radio.disabled !== isOff) radio.disabled = isOff;
    const label = radio.closest("label");
    if (!label) continue;
    if (label.classList.contains("tf-refused") !== Boolean(reason)) label.classList.toggle("tf-refused");
    if (label.title !== reason) label.title = reason;
  }
}

/**
 * Whether the field of a problem is in sight.
 * @param {FieldProblem} problem
 */
export function isFieldVisible({ id }) {
  return Boolean(inputOf(id)?.checkVisibility());
}

/**
 * After a refused Start: goes to the first field that is at fault, and where none is, to what is said of the whole.
 * @param {PreviewValue} preview
 */
export function goToFirstProblem({ problems, general }) {
  if (problems.length) goToField(problems[0]);
  else if (general.length) document.querySelector(".tf-general")?.scrollIntoView({ block: "center" });
}

/**
 * Opens the parts of the form that a field is in, or where its columns are chosen, and goes there.
 * @param {FieldProblem} problem
 */
export async function goToField({ id, within }) {
  const columns = /** @type {HTMLElement | null} */ (
    id === "f-data-columns" ? document.querySelector("#tf-your-data .tf-choose select") : null
  );
  if (!columns) await openParts(id, within);
  const details = columns?.closest("details");
  if (details) details.open = true;
  const input = columns ?? inputOf(id);
  (columns ?? input?.closest(".tf-field"))?.scrollIntoView({ block: "center" });
  input?.focus({ preventScroll: true });
}

/**
 * Presses the headings of the closed parts that a field is in, one after the other.
 * @param {string} id
 * @param {string[]} within the headings
 */
async function openParts(id, within) {
  const headings = within.map(letters);
  const pressed = new Set();
  for (let tries = 0; tries < OPENING_TRIES && !inputOf(id)?.checkVisibility(); tries++) {
    const buttons = /** @type {HTMLButtonElement[]} */ ([...document.querySelectorAll("#tf-fields button")]);
    const part = buttons.find(
      (node) => headings.includes(letters(node.textContent ?? "")) && node.checkVisibility() && !pressed.has(node),
    );
    if (part) {
      pressed.add(part);
      part.click();
    }
    await sleep(OPENING_STEP);
  }
}

/**
 * The words of a button without the signs beside them.
 * @param {string} text
 */
function letters(text) {
  return text.replace(/[^\p{L}\p{N}]/gu, "");
}

/**
 * @param {string} id
 * @returns {HTMLElement | null | undefined}
 */
function inputOf(id) {
  const field = document.getElementById(id);
  return field?.querySelector("input[type=radio]:checked") ?? field?.querySelector("input, textarea, select");
}
