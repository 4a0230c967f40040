// What is said and drawn of memory and the network.

import assert from "node:assert/strict";
import { test } from "node:test";

import { pathOf } from "../../assets/page/memory_charts.js";
import { rowsThatFit, tableState, withChange } from "../../assets/page/memory_text.js";
import { layerState } from "../../assets/page/network.js";
import { sentence } from "../../assets/page/setting_names.js";

const device = { name: "T4 16 GB", bytes: 16 };
/** @returns {any} */
const whatIf = (more = {}) => ({
  device,
  largest_micro_batch: 4,
  effective_batch: 8,
  reaches: { rows: 4, steps: 2 },
  all_rows: null,
  ...more,
});

test("how many rows at once fit is said in one sentence", () => {
  const sentences = [
    [{ largest_micro_batch: null }, "Even one row at a time may not fit T4 16 GB."],
    [{}, "At most 4 rows at once surely fit T4 16 GB; 4 × 2 reaches the effective batch of 8."],
    [
      { largest_micro_batch: 1, reaches: { rows: 1, steps: 8 } },
      "At most 1 row at once surely fits T4 16 GB; 1 × 8 reaches the effective batch of 8.",
    ],
    [{ largest_micro_batch: 8 }, "The whole effective batch of 8 rows fits T4 16 GB at once."],
    [{ all_rows: 30 }, "All 30 rows at once would fit T4 16 GB."],
    [{ effective_batch: null, all_rows: 1 }, "The one held-out row fits T4 16 GB."],
    [{ effective_batch: null }, "With a micro-batch of at most 4 rows the run surely fits T4 16 GB."],
  ];
  for (const [change, text] of sentences) assert.equal(rowsThatFit(whatIf(/** @type {any} */ (change))), text);
});

test("what is said of numbers from a formula", () => {
  assert.equal(tableState({ kind: "traced", pending: false, why_approximate: null }), "");
  assert.match(tableState({ kind: "approximate", pending: true, why_approximate: null }), /being traced/);
  assert.match(tableState({ kind: "approximate", pending: false, why_approximate: null }), /no exact table/);
  assert.equal(tableState({ kind: "approximate", pending: false, why_approximate: "no room" }), "");
});

test("a change of settings takes nothing away that it does not name", () => {
  const settings = { seed: 0, data: { source: "a", max_seq_length: 128 }, method: { name: "lora", r: 8 } };
  const changed = withChange(settings, { data: { max_seq_length: 64 }, method: { name: "full" } });
  assert.deepEqual(changed, { seed: 0, data: { source: "a", max_seq_length: 64 }, method: { name: "full" } });
  assert.equal(settings.data.max_seq_length, 128, "the settings themselves are as they were");
});

test("a path of a drawing goes through its points", () => {
  assert.equal(
    pathOf([
      [0, 1],
      [2.25, 3],
    ]),
    "M0.0 1.0L2.3 3.0",
  );
});

test("a layer is trained where a part is, else added to where one is, else frozen", () => {
  const parts = (/** @type {string[]} */ ...states) => states.map((state) => ({ name: "", count: 1, state }));
  assert.equal(layerState(parts("frozen", "added", "trained")), "trained");
  assert.equal(layerState(parts("frozen", "added")), "added");
  assert.equal(layerState(parts("frozen")), "frozen");
});
