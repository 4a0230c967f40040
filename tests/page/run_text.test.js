// What a run's row says in words, and how shown runs are told apart.

import assert from "node:assert/strict";
import { test } from "node:test";

import { errorText } from "../../assets/page/calibration.js";
import { assignLooks, DASHES, lookOf } from "../../assets/page/run_look.js";
import * as runText from "../../assets/page/run_text.js";

/** @returns {any} */
function run(id = "r1", settings = {}, more = {}) {
  return {
    run_id: id,
    name: "",
    state: "running",
    settings: {
      task: "causal_lm",
      model: "tiny-town",
      method: { name: "lora", r: 8 },
      data: { source: "reviews" },
      ...settings,
    },
    plan: { derived: {}, notices: [] },
    ...more,
  };
}

test("a run is named by its name, else by its id", () => {
  assert.equal(runText.nameOf(run("r1")), "r1");
  assert.equal(runText.nameOf(run("r1", {}, { name: "first" })), "first");
});

test("the weights of a run that was cut off are named by what they come from", () => {
  assert.equal(runText.sourceText({ kind: "best", step: 10 }), "weights of update 10, its best evaluation");
  assert.equal(runText.sourceText({ kind: "checkpoint", step: 1400 }), "weights of update 1,400, its last checkpoint");
  assert.equal(runText.sourceText(null), "");
});

test("a run that began with another's result says which", () => {
  const base = run("r1", {}, { name: "first" });
  const find = (/** @type {string} */ id) => (id === "r1" ? base : undefined);
  assert.equal(runText.lineage(run("r2", { model: "run:r1/best" }), find), "from first");
  assert.equal(runText.lineage(run("r2", { model: "run:r9" }), find), "from r9");
  assert.equal(runText.lineage(base, find), "");
  assert.equal(runText.baseModel(run("r2", { model: "run:r1" }), find), "tiny-town");
});

test("curves of different tasks, data or base models are not comparable", () => {
  const none = () => undefined;
  const names = { causal_lm: "write text", sequence_classification: "choose a class" };
  assert.equal(runText.notComparable([run(), run("r2")], names, none), "");
  assert.equal(
    runText.notComparable(
      [run(), run("r2", { task: "sequence_classification", data: { source: "topics" } })],
      names,
      none,
    ),
    "These curves are of different tasks (“write text”, “choose a class”) and data (“reviews”, “topics”): " +
      "the height of one says nothing about another.",
  );
});

test("a run on another's result has the base model of that one", () => {
  const find = (/** @type {string} */ id) => (id === "r1" ? run("r1") : undefined);
  assert.equal(runText.notComparable([run("r1"), run("r2", { model: "run:r1" })], {}, find), "");
});

test("the time left is the mean time of an update for each that is left", () => {
  const going = run("r1", {}, { total_steps: 30, step: 9 });
  assert.equal(runText.timeLeft(going, /** @type {any} */ ({ step: 10, seconds: 5 })), " · 10 s left");
  assert.equal(runText.timeLeft(going, undefined), "");
  assert.equal(runText.timeLeft({ ...going, state: "paused" }, /** @type {any} */ ({ step: 10, seconds: 5 })), "");
});

test("the phase says what a run waits for, does, or died of", () => {
  assert.equal(runText.phaseText(run("r1", {}, { state: "queued", place: 2 }), undefined), "place 2 in the queue");
  assert.equal(runText.phaseText(run("r1", {}, { state: "queued", place: null }), undefined), "loading libraries");
  assert.equal(runText.phaseText(run("r1", {}, { state: "failed", message: "no memory" }), undefined), "no memory");
  assert.equal(runText.phaseText(run("r1"), undefined), "starting");
  assert.equal(runText.phaseText(run("r1", {}, { phase: "tokenizing" }), undefined), "tokenizing");
});

test("settings without a column are named where runs differ in them", () => {
  const runs = [run("r1", { seed: 0, precision: "fp32" }), run("r2", { seed: 1, precision: "fp32" })];
  const words = runText.differingSettings(runs).map((setting) => runs.map(setting));
  assert.deepEqual(words, [["seed 0", "seed 1"]]);
});

test("an estimate's error is in percent of what was measured, once the run has finished", () => {
  const ended = { state: "finished", estimate: { total_bytes: 110 }, peak_bytes: 100 };
  const measured = run("r1", {}, ended);
  assert.ok(Math.abs(Number(runText.estimateError(measured)) - 10) < 1e-9);
  assert.equal(runText.estimateError(run()), null);
  assert.equal(runText.estimateError(run("r3", {}, { ...ended, state: "running" })), null);
  const other = run("r2", {}, { ...ended, estimate: { total_bytes: 98 } });
  assert.match(errorText([measured, other]), /^2 runs: error 6\.0 % in the middle, 10\.0 % at most\./);
  assert.match(errorText([measured]), /^1 run: error 10\.0 % in the middle, 10\.0 % at most\./);
});

test("runs that are shown look different, and keep their look while others come and go", () => {
  const palette = ["red", "blue"];
  const runs = ["a", "b", "c"].map((id) => run(id, {}, { slot: 0 }));
  assignLooks(runs.slice(0, 1), palette);
  assert.equal(lookOf(runs[0], palette).color, "red");
  assignLooks(runs, palette);
  const looks = runs.map((one) => lookOf(one, palette));
  assert.equal(looks[0].color, "red", "as before");
  assert.equal(new Set(looks.map(({ color, dash }) => `${color} ${dash}`)).size, 3);
  assert.equal(looks.filter(({ dash }) => dash === DASHES[0]).length, 2, "colours before dashes");
  assignLooks([], palette);
  assert.equal(lookOf(runs[2], palette).lineIndex, 0);
});
