// @ts-check
// Settings by the page's own words: the server's messages name them by their path, a person sees the field's label.

/** @typedef {import("./shapes").Problem} Problem */

/** @type {Record<string, string>} */
let labels = {};
/** @type {Record<string, Record<string, string>>} */
let terms = {};
/** @type {RegExp | null} */
let pathPattern = null;

/**
 * Sets the page's labels by the path of their setting, and its words for what can be chosen there, before anything is
 * drawn. Only paths that are no plain word are looked for in messages.
 * @param {Record<string, string>} labelsByPath
 * @param {Record<string, Record<string, string>>} termsByPath
 */
export function nameSettings(labelsByPath, termsByPath) {
  [labels, terms] = [labelsByPath, termsByPath];
  const paths = Object.keys(labels).filter((path) => /[._]/.test(path));
  paths.sort((one, two) => two.length - one.length); // the longest first: eval.max_new_tokens before eval.max
  const any = paths.map((path) => path.replaceAll(".", "\\.")).join("|");
  pathPattern = any ? new RegExp(`(?<![\\w.])(${any})(?![\\w]|\\.\\w)(?:( to | as | )([a-z_0-9]+)\\b)?`, "g") : null;
}

/**
 * The label of a setting, without how its value is to be typed.
 * @param {string} path
 */
function labelOf(path) {
  return labels[path]?.replace(/[,(].*/, "").trim();
}

/**
 * A message with the page's own words: settings by their labels, and what is chosen in them as it stands there.
 * @param {string} text
 */
export function inPageWords(text) {
  if (!pathPattern) return text;
  return text.replace(pathPattern, (_, path, to, word) => {
    const term = terms[path]?.[word];
    return term ? `“${labelOf(path)}: ${term}”` : `“${labelOf(path)}”${to ?? ""}${word ?? ""}`;
  });
}

/**
 * The page's word for a value that can be chosen.
 * @param {string} path
 * @param {string} value
 */
export function termOf(path, value) {
  return terms[path]?.[value] ?? value;
}

/**
 * A problem as a sentence: the label of its setting, and the message, which does not repeat that name.
 * @param {Pick<Problem, "message"> & { field?: string }} problem
 */
export function sentence({ field, message }) {
  const name = labelOf(field ?? "");
  return name ? `${name}: ${inPageWords(message)}` : inPageWords(message);
}

/**
 * The name of a setting for a person: its label on the page, else the last word of its path.
 * @param {string} path
 */
export function settingName(path) {
  if (labels[path]) return labelOf(path);
  const last = String(path.split(".").at(-1)).replaceAll("_", " ");
  return last.charAt(0).toUpperCase() + last.slice(1);
}
