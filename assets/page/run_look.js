// Which colour and line each shown run has: a colour that no other of the shown has, and where all are taken, dashes.

/** Lengths of dash and gap in pixels; the first is a whole line. */
export const DASHES = ["solid", "9px,5px", "16px,5px,3px,5px", "3px,4px", "16px,5px,9px,5px", "22px,7px"];
/** The marks of evaluations, one a dash pattern: their own lines are all dotted. */
export const SYMBOLS = ["diamond", "circle", "square", "triangle-up", "x", "star"];

const kept = new Map(); // run id -> {color, line}: what is on the screen keeps its look while others come and go

/** Gives each of the shown runs, newest first as they are listed, its look; a run that is no longer shown gives its own up. */
export function giveLooks(runs, palette) {
  const shown = new Set(runs.map((run) => run.run_id));
  for (const id of kept.keys()) if (!shown.has(id)) kept.delete(id);
  const used = new Set([...kept.values()].map(({ color, line }) => `${color}/${line}`));
  for (const run of [...runs].reverse()) {
    if (kept.has(run.run_id)) continue;
    const own = (run.slot ?? 0) % palette.length;
    const order = palette.map((_, place) => (own + place) % palette.length); // its own first
    let color = own,
      line = 0;
    for (; line < DASHES.length; line++) {
      const free = order.find((one) => !used.has(`${one}/${line}`));
      if (free !== undefined) {
        color = free;
        break;
      }
    }
    line %= DASHES.length;
    used.add(`${color}/${line}`);
    kept.set(run.run_id, { color, line });
  }
}

/** Of a run that is not shown: what it would have if it were alone. */
export function lookOf(run, palette) {
  const { color, line } = kept.get(run.run_id) ?? { color: (run.slot ?? 0) % palette.length, line: 0 };
  return { color: palette[color], dash: DASHES[line], symbol: SYMBOLS[line], line };
}
