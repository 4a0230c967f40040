// Smoothing, thinning and the places of points on an axis.

import assert from "node:assert/strict";
import { test } from "node:test";

import { interpolate, positionOf, positionOfEvaluation, smooth, thin } from "../../assets/page/curves.js";

const range = (/** @type {number} */ n) => Array.from({ length: n }, (_, index) => index);

test("the smoothing of a constant is the constant, from the first point on", () => {
  for (const weight of [0, 0.6, 0.98]) {
    for (const value of smooth(
      range(50).map(() => 2.5),
      weight,
    ))
      assert.ok(Math.abs(Number(value) - 2.5) < 1e-12);
  }
});

test("smoothing with weight 0 leaves the values as they are", () => {
  assert.deepEqual(smooth([3, 1, 2], 0), [3, 1, 2]);
});

test("smoothing is the average with exponential weights, corrected for its start", () => {
  // by hand with weight 0.5: 4; (0.5 * 4 + 1 * 1) / 1.5; (0.25 * 4 + 0.5 * 1 + 1 * 7) / 1.75
  const smoothed = smooth([4, 1, 7], 0.5);
  [4, 2, 8.5 / 1.75].forEach((value, index) => assert.ok(Math.abs(Number(smoothed[index]) - value) < 1e-12));
});

test("smoothing steps over gaps", () => {
  assert.deepEqual(smooth([1, null, 1], 0.9), [1, null, 1]);
});

test("a curve that is short enough is not thinned", () => {
  const xs = range(1200);
  const [x, y] = thin(xs, xs);
  assert.equal(x, xs);
  assert.equal(y, xs);
});

test("thinning keeps the first point, the last, the lowest and the highest, in their order", () => {
  const xs = range(100_000);
  const ys = xs.map((x) => Math.sin(x / 700));
  ys[0] = 0.123;
  ys[31_337] = -9;
  ys[77_777] = 9;
  ys[99_999] = 0.456;
  const [x, y] = thin(xs, ys);
  assert.ok(x.length <= 1200 && x.length > 1000, `${x.length} points`);
  assert.deepEqual([x[0], y[0]], [0, 0.123]);
  assert.deepEqual([x.at(-1), y.at(-1)], [99_999, 0.456]);
  assert.equal(y[x.indexOf(31_337)], -9);
  assert.equal(y[x.indexOf(77_777)], 9);
  assert.deepEqual(
    x,
    [...x].sort((one, two) => one - two),
    "in their order",
  );
  x.forEach((position, index) => assert.equal(y[index], ys[position], "each value beside its own position"));
});

test("thinning keeps the extremes of every bucket", () => {
  const xs = range(3000);
  const ys = xs.map((x) => (x % 100 === 50 ? -1 : x % 100 === 51 ? 1 : 0));
  const [x] = thin(xs, ys, 200);
  for (let peak = 50; peak < 3000; peak += 100) {
    assert.ok(x.includes(peak) && x.includes(peak + 1), `the extremes at ${peak}`);
  }
});

test("thinning never draws more points than it may, and no point twice", () => {
  for (const length of [11, 12, 13, 99, 1000]) {
    const [x] = thin(range(length), range(length), 10);
    assert.ok(x.length <= 10, `${x.length} of ${length}`);
    assert.equal(new Set(x).size, x.length);
  }
});

test("thinning passes over gaps, and leaves one where there is nothing else", () => {
  const xs = range(40);
  const ys = xs.map((x) => (x >= 10 && x < 30 ? null : x === 35 ? -5 : 1));
  const [x, y] = thin(xs, ys, 10);
  assert.ok(y.includes(null) && x.includes(35));
  assert.equal(x.at(-1), 39);
});

/** @type {any[]} */
const STEPS = [
  { step: 2, seconds: 1, examples: 32 },
  { step: 6, seconds: 3, examples: 96 },
];

test("an update lies where its own number says", () => {
  assert.equal(positionOf("step", STEPS[0]), 2);
  assert.equal(positionOf("seconds", STEPS[1]), 3);
});

test("an update without the number has no place", () => {
  assert.equal(positionOf("trained_tokens", STEPS[0]), null);
});

/** @param {number} step */
const evaluation = (step) => /** @type {any} */ ({ step, seconds: 99 });

test("an evaluation lies at the update that it follows, not at its own seconds", () => {
  assert.equal(positionOfEvaluation("step", evaluation(6), STEPS), 6);
  assert.equal(positionOfEvaluation("seconds", evaluation(6), STEPS), 3);
  assert.equal(positionOfEvaluation("examples", evaluation(2), STEPS), 32);
});

test("an evaluation between two updates that are there lies in proportion", () => {
  assert.equal(positionOfEvaluation("seconds", evaluation(5), STEPS), 2.5);
  assert.equal(positionOfEvaluation("seconds", evaluation(1), STEPS), 0.5, "before the first from the start on");
});

test("an evaluation before the first update lies at the start, one after the last at the last", () => {
  assert.equal(positionOfEvaluation("seconds", evaluation(0), STEPS), 0);
  assert.equal(positionOfEvaluation("seconds", evaluation(9), STEPS), 3);
  assert.equal(positionOfEvaluation("seconds", evaluation(9), []), null);
});

test("a value between two of a list is interpolated", () => {
  assert.equal(interpolate([1, 2, 4], [10, 20, 60], 3), 40);
  assert.equal(interpolate([1, 2, 4], [10, 20, 60], 2), 20);
  assert.equal(interpolate([1, 2, 4], [10, 20, 60], 1), 10);
});
