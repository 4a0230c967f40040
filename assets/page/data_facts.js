// @ts-check
// What to know about the rows before they are trained on: updates an epoch, duplicates, empty answers, classes.

import { element } from "./dom.js";
import { count, plural } from "./format.js";

/** @typedef {import("./shapes").DataPreview} DataPreview */
/** @typedef {import("./shapes").LabelCount} LabelCount */

const SHOWN_CLASSES = 20;

/** @param {DataPreview} preview */
export function factsSection(preview) {
  if (!preview.train_rows) return [];
  const items = factTexts(preview).map(([text, isOdd]) => element("li", { class: isOdd ? "tf-odd" : null }, text));
  return [
    element("section", { "aria-label": "What to know about the rows" }, [
      element("h3", {}, "What to know about them"),
      element("ul", { class: "tf-facts" }, items),
      ...(preview.labels?.length ? classBalance(preview.labels) : []),
    ]),
  ];
}

/**
 * A sentence a fact, and whether it is one to look at.
 * @param {DataPreview} preview
 * @returns {[text: string, isOdd: boolean][]}
 */
export function factTexts(preview) {
  const { whole, counted, duplicates = 0, in_both: both = 0, empty = 0 } = preview;
  const are = (/** @type {number} */ n, one = "is", several = "are") => (n === 1 ? one : several);
  const some = whole === false ? " (of the rows looked at)" : "";
  /** @type {[string, boolean][]} */
  const texts = [];
  if (preview.updates_per_epoch && (whole !== false || counted)) {
    const rows = plural(preview.effective_batch ?? 0, "row");
    texts.push([`${plural(preview.updates_per_epoch, "update")} an epoch, ${rows} each`, false]);
  }
  const repeated = plural(duplicates, "duplicate training row");
  texts.push([`${duplicates ? repeated : "no duplicate rows"}${some}`, duplicates > 0]);
  if (preview.eval_rows) {
    const shared = `${plural(both, "evaluation row")} ${are(both)} trained on too`;
    texts.push([`${both ? shared : "no evaluation row is trained on"}${some}`, both > 0]);
  }
  const learned = `${are(empty, "has", "have")} nothing to learn from (an empty answer)`;
  const dropped = `${count(empty)} of ${plural(preview.looked_at ?? 0, "row")} ${learned} and ${are(empty)} left out`;
  texts.push([empty ? dropped : "no answer is empty", empty > 0]);
  return texts;
}

/**
 * How many rows each class has, with a bar.
 * @param {LabelCount[]} labels
 */
function classBalance(labels) {
  const most = Math.max(1, ...labels.map((label) => label.train));
  const lines = labels.slice(0, SHOWN_CLASSES).map((label) => {
    const fill = element("span", {});
    fill.style.width = `${(100 * label.train) / most}%`;
    return element("tr", {}, [
      element("td", {}, label.name),
      element("td", { class: "tf-num" }, count(label.train)),
      element("td", { class: "tf-num" }, count(label.eval)),
      element("td", { class: "tf-balance" }, element("span", { class: "tf-bar" }, fill)),
    ]);
  });
  const head = (/** @type {string} */ text, isNumber = false) =>
    element("th", { scope: "col", class: isNumber ? "tf-num" : null }, text);
  const heads = [head("class"), head("training", true), head("evaluation", true), head("")];
  const table = element("table", { class: "tf-table" }, [
    element("thead", {}, element("tr", {}, heads)),
    element("tbody", {}, lines),
  ]);
  if (labels.length <= SHOWN_CLASSES) return [table];
  const more = plural(labels.length - SHOWN_CLASSES, "more class", "more classes");
  return [table, element("p", { class: "tf-small" }, `and ${more}`)];
}
