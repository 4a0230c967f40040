// The page's copy of the runs: lists, cursors, points, replays and attempts.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  addPoints,
  addressShowing,
  applyAnswer,
  canAnswer,
  canAnswerWithBest,
  emptyState,
  isActive,
  isShown,
  liveQuery,
  mergeRuns,
  shownIn,
} from "../../assets/page/run_state.js";

/**
 * @param {number} number
 * @returns {any}
 */
function run(number, more = {}) {
  return { run_id: `r${number}`, number, state: "finished", ...more };
}

/** @returns {any} */
function answer(more = {}) {
  return { epoch: "e1", version: 1, progress: {}, points: {}, ...more };
}

/**
 * @param {number} id
 * @param {number[]} steps
 * @returns {any}
 */
function points(id, steps, evaluations = /** @type {number[]} */ ([]), loss = 1) {
  return { id, step: steps.map((step) => ({ step, loss })), eval: evaluations.map((step) => ({ step, loss })) };
}

const stepsOf = (/** @type {any} */ series) => series.step.map((/** @type {any} */ point) => point.step);

test("a queued, running or paused run is active, an ended one is not", () => {
  for (const state of ["queued", "running", "paused"]) assert.ok(isActive(run(1, { state })));
  for (const state of ["finished", "failed", "cancelled", "interrupted"]) assert.ok(!isActive(run(1, { state })));
});

test("a run that has learned something can be asked, while it is paused too, and a failed or queued one cannot", () => {
  for (const state of ["running", "paused", "finished", "cancelled"]) assert.ok(canAnswer(run(1, { state, step: 1 })));
  for (const state of ["running", "paused"]) assert.ok(!canAnswer(run(1, { state, step: 0 })));
  for (const state of ["queued", "failed", "interrupted"]) assert.ok(!canAnswer(run(1, { state, step: 1 })));
});

test("the best weights are offered of a run that has ended alone, and not of one that is paused", () => {
  for (const state of ["finished", "cancelled"]) assert.ok(canAnswerWithBest(run(1, { state, step: 1 })));
  for (const state of ["running", "paused"]) assert.ok(!canAnswerWithBest(run(1, { state, step: 1 })));
});

test("points are added behind those that are there, and the cursor moves on", () => {
  const series = addPoints(addPoints(undefined, points(3, [1, 2], [0])), points(7, [3], [2]));
  assert.deepEqual(stepsOf(series), [1, 2, 3]);
  assert.deepEqual(
    series.eval.map((point) => point.step),
    [0, 2],
  );
  assert.equal(series.id, 7);
});

test("points that come twice stand once", () => {
  const series = addPoints(undefined, points(3, [1, 2, 3]));
  assert.deepEqual(stepsOf(addPoints(series, points(3, [1, 2, 3]))), [1, 2, 3]);
  assert.deepEqual(stepsOf(addPoints(series, points(4, [2, 3]))), [1, 2, 3]);
});

test("a later attempt replaces the points of the steps that it makes again", () => {
  const series = addPoints(undefined, points(5, [1, 2, 3, 4, 5], [0, 4], 1));
  const replayed = addPoints(series, points(9, [3, 4], [2], 2));
  assert.deepEqual(stepsOf(replayed), [1, 2, 3, 4], "what the earlier attempt made beyond it is gone");
  assert.deepEqual(
    replayed.step.map((point) => point.loss),
    [1, 1, 2, 2],
  );
  assert.deepEqual(
    replayed.eval.map((point) => point.step),
    [0, 2],
  );
});

test("an answer without one kind of points leaves that kind as it is", () => {
  const series = addPoints(undefined, points(3, [1], [1]));
  assert.deepEqual(stepsOf(addPoints(series, /** @type {any} */ ({ id: 4 }))), [1]);
});

test("the first answer shows the three newest runs and asks for their points", () => {
  const state = emptyState();
  const more = applyAnswer(state, answer({ runs: [run(5), run(4), run(3), run(2)], older: 2 }));
  assert.equal(more, true);
  assert.deepEqual([...(state.shown ?? [])], ["r5", "r4", "r3"]);
  assert.equal(state.older, 2);
  assert.equal(liveQuery(state), "cur=r5%3A0%2Cr4%3A0%2Cr3%3A0&v=1");
});

test("runs that the address names are asked for by name before the list is here", () => {
  const state = emptyState();
  state.shown = new Set(["r1"]);
  assert.equal(liveQuery(state), "cur=r1%3A0");
});

test("the cursor of a run is the store's number of the last point that came", () => {
  const state = emptyState();
  applyAnswer(state, answer({ runs: [run(1)], older: null, points: { r1: points(42, [1, 2]) } }));
  assert.equal(liveQuery(state), "cur=r1%3A42&v=1");
});

test("a running run is asked for though it is not shown, and a run that is gone is not", () => {
  const state = emptyState();
  state.shown = new Set(["r1", "gone"]);
  applyAnswer(state, answer({ runs: [run(2, { state: "running" }), run(1)], older: null }));
  assert.equal(new URLSearchParams(liveQuery(state)).get("cur"), "r1:0,r2:0");
});

test("another store begins anew: its list is asked for, and no old cursor", () => {
  const state = emptyState();
  applyAnswer(state, answer({ runs: [run(1)], older: null, points: { r1: points(42, [1]) } }));
  assert.equal(applyAnswer(state, answer({ epoch: "e2", version: 9 })), true);
  assert.equal(state.series.size, 0);
  assert.equal(state.listVersion, null);
  assert.equal(new URLSearchParams(liveQuery(state)).get("cur"), "r1:0", "the shown run, from its first point on");
});

test("changed runs replace their older selves, removed ones go with their points", () => {
  const state = emptyState();
  applyAnswer(state, answer({ runs: [run(2), run(1)], older: null, points: { r1: points(3, [1]) } }));
  const later = { version: 2, runs: [run(2, { name: "better" })], removed: ["r1"] };
  assert.equal(applyAnswer(state, answer(later)), false);
  assert.deepEqual(
    state.runs.map(({ run_id, name }) => [run_id, name]),
    [["r2", "better"]],
  );
  assert.equal(state.series.has("r1"), false);
});

test("what changes far down the list does not come into it", () => {
  const state = emptyState();
  applyAnswer(state, answer({ runs: [run(9), run(8)], older: 8 }));
  applyAnswer(state, answer({ version: 2, runs: [run(3), run(10)], removed: ["r7"] }));
  assert.deepEqual(
    state.runs.map((one) => one.number),
    [10, 9, 8],
  );
});

test("the progress of active runs is taken into their rows", () => {
  const state = emptyState();
  applyAnswer(state, answer({ runs: [run(1, { state: "queued" })], older: null }));
  applyAnswer(state, answer({ progress: { r1: { state: "running", step: 4 }, unknown: { step: 1 } } }));
  assert.deepEqual([state.runs[0].state, state.runs[0].step], ["running", 4]);
});

test("why nothing can be stored stands until an answer no longer says it", () => {
  const state = emptyState();
  applyAnswer(state, answer({ trouble: "The disk is full." }));
  assert.equal(state.trouble, "The disk is full.");
  applyAnswer(state, answer());
  assert.equal(state.trouble, "");
});

test("merged runs stand newest first, each once", () => {
  const state = emptyState();
  mergeRuns(state, [run(1), run(3)]);
  mergeRuns(state, [run(2), run(3, { name: "now" })]);
  assert.deepEqual(
    state.runs.map((one) => one.number),
    [3, 2, 1],
  );
  assert.equal(state.runs[0].name, "now");
});

test("nothing is shown until it is known what is", () => {
  assert.equal(isShown(emptyState(), run(1)), false);
});

test("the runs that an address shows are read and written", () => {
  assert.equal(shownIn("?theme=dark"), null);
  assert.deepEqual(shownIn("?runs="), new Set());
  assert.deepEqual(shownIn("?runs=r1,r2"), new Set(["r1", "r2"]));
  assert.equal(addressShowing("http://host/?a=1", ["r1", "r2"]), "http://host/?a=1&runs=r1,r2");
  assert.equal(addressShowing("http://host/?runs=r1", []), "http://host/");
});
