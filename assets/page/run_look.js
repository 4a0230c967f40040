// @ts-check
// Which colour and line each shown run has: a colour that no other of them has, and where all are taken, dashes.

/** @typedef {import("./shapes").RunLine} RunLine */

/** Lengths of dash and gap in pixels; the first is a solid line. */
export const DASHES = ["solid", "9px,5px", "16px,5px,3px,5px", "3px,4px", "16px,5px,9px,5px", "22px,7px"];
/** The marks of evaluations, one a dash pattern: their own lines are all dotted. */
export const SYMBOLS = ["diamond", "circle", "square", "triangle-up", "x", "star"];

/**
 * Indices into the palette and into DASHES.
 * @typedef {{ colorIndex: number, lineIndex: number }} Look
 */

/**
 * By run id: what is on the screen has one look while others come and go.
 * @type {Map<string, Look>}
 */
const looks = new Map();

/**
 * @param {RunLine} run
 * @param {string[]} palette
 */
function ownColorIndex(run, palette) {
  return (run.slot ?? 0) % palette.length;
}

/**
 * Gives each of the shown runs, newest first as they are listed, its look; those that are no longer shown lose theirs.
 * @param {RunLine[]} runs
 * @param {string[]} palette
 */
export function assignLooks(runs, palette) {
  const shown = new Set(runs.map((run) => run.run_id));
  for (const id of looks.keys()) if (!shown.has(id)) looks.delete(id);
  for (const run of [...runs].reverse()) {
    if (!looks.has(run.run_id)) looks.set(run.run_id, freeLook(ownColorIndex(run, palette), palette.length));
  }
}

/**
 * The first look that no run has: the run's own colour before the others, all colours before the next dashes. Where
 * all are taken, the own colour in a solid line.
 * @param {number} own
 * @param {number} colors how many there are
 * @returns {Look}
 */
function freeLook(own, colors) {
  const used = new Set([...looks.values()].map(({ colorIndex, lineIndex }) => `${colorIndex}/${lineIndex}`));
  for (let lineIndex = 0; lineIndex < DASHES.length; lineIndex++) {
    for (let offset = 0; offset < colors; offset++) {
      const colorIndex = (own + offset) % colors;
      if (!used.has(`${colorIndex}/${lineIndex}`)) return { colorIndex, lineIndex };
    }
  }
  return { colorIndex: own, lineIndex: 0 };
}

/**
 * The look of a run; of one that is not shown, what it would have if it were alone.
 * @param {RunLine} run
 * @param {string[]} palette
 */
export function lookOf(run, palette) {
  const { colorIndex, lineIndex } = looks.get(run.run_id) ?? { colorIndex: ownColorIndex(run, palette), lineIndex: 0 };
  return { color: palette[colorIndex], dash: DASHES[lineIndex], symbol: SYMBOLS[lineIndex], lineIndex };
}
