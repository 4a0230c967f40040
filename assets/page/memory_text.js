// @ts-check
// What the figures of POST /fork/memory say, in sentences. Pure functions.

import { plural } from "./format.js";

/** @typedef {import("./shapes").MemoryAnswer} MemoryAnswer */

/** @param {{ name: string }} device */
export function deviceName(device) {
  return device.name === "This machine" ? "this machine" : device.name;
}

const BLOCKS = ["data", "eval", "sample", "optimizer"];

/**
 * Settings with a change of some of them; a block of settings loses nothing that the change does not name.
 * @param {Record<string, any>} settings
 * @param {Record<string, any>} change
 */
export function withChange(settings, change) {
  const changed = { ...settings };
  for (const [name, value] of Object.entries(change)) {
    changed[name] = BLOCKS.includes(name) ? { ...settings[name], ...value } : value;
  }
  return changed;
}

/**
 * How many rows at once fit. Where nothing is trained there is no effective batch: a micro-batch then only cuts the
 * evaluation.
 * @param {Pick<MemoryAnswer, "device" | "largest_micro_batch" | "effective_batch" | "reaches" | "all_rows">} whatIf
 */
export function rowsThatFit({ device, largest_micro_batch: most, effective_batch: batch, reaches, all_rows: all }) {
  const name = deviceName(device);
  if (most === null) return `Even one row at a time may not fit ${name}.`;
  if (batch === null) {
    if (!all) return `With a micro-batch of at most ${plural(most, "row")} the run surely fits ${name}.`;
    return `${all === 1 ? "The one held-out row fits" : `All ${all} held-out rows at once fit`} ${name}.`;
  }
  if (all) return `${all === 1 ? "The one row" : `All ${all} rows at once`} would fit ${name}.`;
  if (most >= batch) return `The whole effective batch of ${plural(batch, "row")} fits ${name} at once.`;
  const rows = `${plural(most, "row")} at once surely ${most === 1 ? "fits" : "fit"} ${name}`;
  return `At most ${rows}; ${reaches?.rows} × ${reaches?.steps} reaches the effective batch of ${batch}.`;
}

/**
 * What is said where the numbers are not those of an exact table, and the bar's note has not given the reason.
 * @param {Pick<MemoryAnswer, "kind" | "pending" | "why_approximate">} whatIf
 */
export function tableState({ kind, pending, why_approximate: reason }) {
  if (kind === "traced") return "";
  if (pending) return "The exact table is being traced; these are from a formula until it is there.";
  if (reason) return "";
  return "There is no exact table for these settings: these stay approximate, with a wider band.";
}
