// @ts-check
// Numbers as a person reads them: bytes, durations, counts, percentages.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/**
 * Bytes with three digits and a binary unit; a dash where there is no number.
 * @param {number | null | undefined} size
 */
export function bytes(size) {
  if (size === null || size === undefined) return "–";
  let unit = 0;
  while (size >= 1024 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${size >= 100 || unit === 0 ? Math.round(size) : size.toPrecision(3)} ${UNITS[unit]}`;
}

/**
 * Seconds as seconds up to 90 s, as minutes up to 90 min, else as hours; nothing where there is no number.
 * @param {number | null | undefined} seconds
 */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "";
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/**
 * A whole number with commas between the thousands.
 * @param {number} value
 */
export function count(value) {
  return Math.round(value).toLocaleString("en");
}

/**
 * A count with its noun: "1 row", "1,200 rows".
 * @param {number} value
 * @param {string} noun
 * @param {string} [nouns] the noun of several, where that is not the noun with an s
 */
export function plural(value, noun, nouns = `${noun}s`) {
  return `${value.toLocaleString("en")} ${value === 1 ? noun : nouns}`;
}

/**
 * A large count in words: "1.24 billion", "22.7 million"; a smaller one in full.
 * @param {number} value
 */
export function countInWords(value) {
  if (value >= 1e9) return `${(value / 1e9).toPrecision(3)} billion`;
  if (value >= 1e6) return `${(value / 1e6).toPrecision(3)} million`;
  return count(value);
}

/**
 * A count with three digits and a letter, where room is scarce: "1.24B", "590k".
 * @param {number} value
 */
export function shortCount(value) {
  /** @type {[number, string][]} */
  const sizes = [
    [1e9, "B"],
    [1e6, "M"],
    [1e3, "k"],
  ];
  for (const [size, letter] of sizes) {
    if (value >= size) return `${(value / size).toPrecision(3)}${letter}`;
  }
  return String(value);
}

/**
 * A number with so many significant digits; a dash where there is none.
 * @param {number | null | undefined} value
 */
export function significant(value, digits = 4) {
  return value === null || value === undefined ? "–" : Number(value).toPrecision(digits);
}

/**
 * A learning rate as people write it: 0.002, 3e-4.
 * @param {number | null | undefined} value
 */
export function learningRate(value) {
  if (value === null || value === undefined) return "–";
  return value >= 0.001 ? String(+value.toPrecision(3)) : value.toExponential(1).replace(".0e", "e");
}

/**
 * A percentage with its sign, where it rounds to anything but zero.
 * @param {number} percent
 */
export function signed(percent) {
  const size = Math.abs(percent).toFixed(1);
  return size === "0.0" ? size : `${percent < 0 ? "−" : "+"}${size}`;
}
