// @ts-check
// The first rows of the data with the tokens they become, and the rows that cannot be used.

import { button, element } from "./dom.js";
import { count, plural } from "./format.js";

/** @typedef {import("./shapes").BadRows} BadRows */
/** @typedef {import("./shapes").DataPreview} DataPreview */
/** @typedef {import("./shapes").PreviewRow} PreviewRow */
/** @typedef {import("./shapes").TokenView} TokenView */
/** @typedef {import("./data.js").SetValues} SetValues */

/**
 * What happens to a token, as its tooltip says it.
 * @type {Record<string, string>}
 */
const TOKEN_STATES = { trained: "trained on", seen: "seen, not trained on", cut: "cut off", gap: "" };

/**
 * @param {DataPreview} preview with bad rows
 * @param {SetValues} set
 */
export function badRowsSection(preview, set) {
  const bad = /** @type {BadRows} */ (preview.bad);
  const isSkipping = bad.choice === "skip";
  const change = button(
    isSkipping ? "Refuse to start instead" : "Leave bad rows out",
    () => set({ "data.bad_rows": isSkipping ? "stop" : "skip" }),
    { "data-key": "bad" },
  );
  const lines = bad.rows.map((row) =>
    element("tr", {}, [
      element("td", { class: "tf-num" }, `${preview.unit} ${row.line}`),
      element("td", {}, row.reason),
    ]),
  );
  return element("section", { "aria-label": "Bad rows" }, [
    element("h3", {}, "Bad rows"),
    element("div", { class: "tf-controls" }, [element("span", {}, badRowsText(bad)), change]),
    element(
      "div",
      { class: "tf-scroll tf-bad", tabindex: 0, role: "group", "aria-label": "List of bad rows" },
      element("table", { class: "tf-table" }, element("tbody", {}, lines)),
    ),
  ]);
}

/**
 * How many rows cannot be used, what happens to them, and how many of them are listed.
 * @param {BadRows} bad
 */
export function badRowsText(bad) {
  const listed = bad.rows.length;
  const them = bad.count === 1 ? "it" : "them";
  const fate = bad.choice === "skip" ? " and will be left out." : `: mend ${them}, or leave ${them} out.`;
  const more = bad.count > listed ? ` The first ${listed === 1 ? "one is" : `${listed} are`} listed.` : "";
  const checked = bad.whole ? "" : ` Of ${plural(bad.checked, "row")} looked at so far.`;
  return `${plural(bad.count, "row")} cannot be used${fate}${more}${checked}`;
}

/** @param {DataPreview} preview with rows */
export function rowsSection(preview) {
  const { rows, tokens } = preview;
  const legend = element("p", { class: "tf-small tf-token-legend" }, [
    token("trained on", "trained"),
    token("seen only", "seen"),
    token("cut off", "cut"),
    token("<special>", "seen", true),
  ]);
  return element("section", { "aria-label": "First rows" }, [
    element("h3", {}, tokens ? "First rows, and the tokens they become" : "First rows"),
    tokens ? legend : null,
    ...(rows ?? []).map((row, index) => rowArticle(row, tokens?.[index], preview)),
  ]);
}

/**
 * @param {PreviewRow} row
 * @param {TokenView | undefined} view
 * @param {DataPreview} preview
 */
function rowArticle(row, view, preview) {
  const cells = Object.entries(row.cells).map(([name, text]) =>
    element("div", { class: "tf-cell" }, [
      element("span", { class: "tf-cell-name" }, name),
      element("span", { class: "tf-cell-text" }, text || "(empty)"),
    ]),
  );
  return element("article", { class: "tf-data-row" }, [
    element("p", { class: "tf-small" }, `${preview.unit} ${count(row.line)}`),
    ...cells,
    ...(view ? tokenNodes(view, preview) : []),
  ]);
}

/**
 * @param {TokenView} view
 * @param {DataPreview} preview
 */
function tokenNodes(view, { labels }) {
  const tokens = view.tokens.map(([text, state, isSpecial, number]) => token(text, state, isSpecial, number));
  const cut = view.kept < view.count ? `, ${count(view.count - view.kept)} cut off` : "";
  const label = view.label === null ? "" : `; the class is ${labels?.[view.label]?.name}`;
  return [
    element("p", { class: "tf-tokens" }, tokens),
    element("p", { class: "tf-small" }, `${plural(view.count, "token")}${cut}${label}`),
  ];
}

/**
 * @param {string} text
 * @param {string} state
 * @param {boolean} isSpecial
 * @param {number} number of tokens that this text is, where they cannot be shown apart
 */
function token(text, state, isSpecial = false, number = 1) {
  const shown = text.replaceAll("\n", "↵\n").replaceAll("\t", "→");
  const special = isSpecial ? ", special token" : "";
  const title = `${TOKEN_STATES[state]}${special}${number > 1 ? `, ${number} tokens` : ""}`;
  const attributes = { "data-state": state, "data-special": isSpecial ? "yes" : null, title };
  return element("span", { class: "tf-token", ...attributes }, shown);
}
