// @ts-check
// Building elements without HTML strings: text only ever goes in as text.

/** @typedef {Node | string | number | null | undefined} Child */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element with attributes and children. An attribute `on…` is a listener; false, null and undefined set none.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, any>} attributes
 * @param {Child | Child[]} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, attributes = {}, children = []) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else node.setAttribute(name, value);
  }
  for (const child of Array.isArray(children) ? children : [children]) {
    if (child !== null && child !== undefined) node.append(/** @type {Node | string} */ (child));
  }
  return node;
}

/**
 * An element of a drawing, with its text.
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string | number>} attributes
 * @param {string | number} [text]
 * @returns {SVGElementTagNameMap[Tag]}
 */
export function svgElement(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  if (text !== undefined) node.textContent = String(text);
  return node;
}

/**
 * A button of the page's own look.
 * @param {string} text
 * @param {(event: Event) => void} onclick
 * @param {Record<string, any>} attributes its `class` stands beside the button's own
 */
export function button(text, onclick, attributes = {}) {
  const { class: classes = "", ...others } = attributes;
  return element("button", { type: "button", class: `tf-button ${classes}`.trim(), onclick, ...others }, text);
}

/**
 * Sets a text only where it is another one: what has not changed is not announced, and a selection in it survives.
 * @param {Node} node
 * @param {string} text
 */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * A promise that is fulfilled after so many milliseconds.
 * @param {number} milliseconds
 * @returns {Promise<void>}
 */
export function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/**
 * The message of whatever was thrown.
 * @param {unknown} error
 */
export function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}

/**
 * A short message at the foot of the page, with one action to press; with `stay` it stands until that is pressed.
 * @param {string} text
 * @param {string} [action]
 * @param {() => void} [onPress]
 */
export function toast(text, action, onPress, stay = false) {
  let list = document.querySelector(".tf-toasts");
  if (!list) {
    list = element("div", { class: "tf-toasts", role: "status" });
    (document.querySelector(".gradio-container") ?? document.body).append(list);
  }
  const note = element("div", { class: "tf-toast" }, element("span", {}, text));
  const press = () => {
    note.remove();
    onPress?.();
  };
  if (action) note.append(button(action, press));
  list.append(note);
  if (!stay) setTimeout(() => note.remove(), action ? 10000 : 6000);
}
