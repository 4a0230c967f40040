// @ts-check
// What a person types or opens to ask with: numbers, and prompts in a file. Pure functions.

/** Prompts at once, as the server allows. */
export const MOST_PROMPTS = 64;

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/**
 * A number where one is typed; anything else as it stands there, for the server to refuse by name.
 * @param {string} typed
 */
export function numberOrText(typed) {
  const text = typed.trim();
  return NUMBER.test(text) ? Number(text) : text;
}

/**
 * The prompts in a file: one a line, or JSON lines with a member `prompt`. Raises an error with a message for a person.
 * @param {string} text
 * @param {string} name of the file
 */
export function promptsIn(text, name) {
  const lines = text
    .replace(/^\uFEFF/, "")
    .split(/\r?\n/)
    .filter((line) => line.trim());
  if (!lines.length) throw new Error(`${name} holds no prompts: write one a line.`);
  if (lines.length > MOST_PROMPTS) {
    throw new Error(`${name} holds ${lines.length} prompts; ask at most ${MOST_PROMPTS} at once.`);
  }
  return lines.map((line, index) => {
    const prompt = line.trimStart().startsWith("{") ? promptOf(line) : line;
    if (typeof prompt === "string") return prompt;
    throw new Error(`Line ${index + 1} of ${name} is no JSON object with a text "prompt".`);
  });
}

/**
 * The member `prompt` of a JSON object; undefined where the text is none.
 * @param {string} json
 */
function promptOf(json) {
  try {
    return JSON.parse(json).prompt;
  } catch {
    return undefined;
  }
}
