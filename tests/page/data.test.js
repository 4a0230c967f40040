// What is said of the rows of data, the disk, and the rows of an evaluation.

import assert from "node:assert/strict";
import { test } from "node:test";

import { chipTexts, withFacts } from "../../assets/page/data.js";
import { columnsFor, unusedColumns } from "../../assets/page/data_columns.js";
import { factTexts } from "../../assets/page/data_facts.js";
import { lengthsText } from "../../assets/page/data_lengths.js";
import { badRowsText } from "../../assets/page/data_rows.js";
import { diskText } from "../../assets/page/deleted.js";
import { isQuestion, summaryText } from "../../assets/page/results.js";

test("each role gets the column it has, else a free one", () => {
  const columns = columnsFor(["prompt", "completion"], ["id", "question", "answer"], { prompt: "question" });
  assert.deepEqual(columns, { prompt: "question", completion: "id" });
});

test("a column in a template is used", () => {
  assert.deepEqual(unusedColumns(["a", "b", "c"], { text: "{a}: x", label: "b" }), ["c"]);
});

/** @returns {any} */
const preview = (more = {}) => ({
  columns: ["text"],
  problems: [],
  notices: [],
  train_rows: 500,
  eval_rows: 100,
  updates_per_epoch: 32,
  effective_batch: 16,
  looked_at: 500,
  ...more,
});

test("the closed section of the data says what it is", () => {
  assert.deepEqual(chipTexts(/** @type {any} */ ({ problems: [] })), [["cannot be read", "over"]]);
  assert.deepEqual(chipTexts(preview({ shape: "text", whole: false })), [["text"], ["500 + 100 rows of its head"]]);
  const bad = { count: 1, choice: "stop" };
  const unread = { bad, problems: [{ field: "data.columns", message: "" }] };
  assert.deepEqual(chipTexts(preview(unread)).slice(1), [
    ["1 bad row", "over"],
    ["needs a choice", "over"],
  ]);
  assert.deepEqual(chipTexts(preview({ problems: [{ field: "model", message: "" }] })), [["500 + 100 rows"]]);
});

test("the facts of all rows come to what the first rows said, with no problem twice", () => {
  const first = preview({ bad: { count: 1, whole: false }, problems: [{ message: "a" }] });
  const facts = { train_rows: 9, bad: { count: 3, whole: true } };
  const both = withFacts(first, /** @type {any} */ ({ facts, problems: [{ message: "a" }, { message: "b" }] }));
  assert.equal(both.train_rows, 9);
  assert.equal(both.bad?.count, 3);
  assert.deepEqual(
    both.problems.map(({ message }) => message),
    ["a", "b"],
  );
});

test("what is odd about the rows is marked", () => {
  assert.deepEqual(factTexts(preview({ duplicates: 0, in_both: 1, empty: 2 })), [
    ["32 updates an epoch, 16 rows each", false],
    ["no duplicate rows", false],
    ["1 evaluation row is trained on too", true],
    ["2 of 500 rows have nothing to learn from (an empty answer) and are left out", true],
  ]);
});

test("the lengths of rows are told with what cutting takes away", () => {
  /** @type {any} */
  const lengths = { rows: 500, limit: 128, cut_rows: 0, cut_answers: 0, longest: 70, mean: 36.2, trained_share: 0.061 };
  assert.equal(
    lengthsText(lengths),
    "A maximum sequence length of 128 cuts none of 500 rows. " +
      "The longest has 70 tokens, the mean is 36; 6 % of the tokens are trained on.",
  );
  const cut = { ...lengths, cut_rows: 12, cut_answers: 1, lost_answers: 1 };
  assert.match(lengthsText(cut), /cuts 12 of 500 rows and 1 answer, 1 of them whole\./);
});

test("rows that cannot be used are counted, with what happens to them", () => {
  const bad = { count: 3, checked: 50, whole: false, choice: "stop", rows: [{ line: 1, reason: "" }] };
  assert.equal(
    badRowsText(bad),
    "3 rows cannot be used: mend them, or leave them out. The first one is listed. Of 50 rows looked at so far.",
  );
  assert.equal(
    badRowsText({ ...bad, count: 1, whole: true, choice: "skip" }),
    "1 row cannot be used and will be left out.",
  );
});

test("what the disk holds is told to a guest without the store and the free space", () => {
  const none = { count: 0, bytes: 0 };
  const use = { runs: { count: 1, bytes: 2048 }, deleted: none, uploads: none, store: null, free: null };
  assert.equal(diskText(use), "On the disk: 1 run 2.00 KiB · 0 deleted runs 0 B · 0 uploaded files 0 B.");
  assert.match(diskText({ ...use, store: 1024, free: 2048 }), /curves and settings 1\.00 KiB · 2\.00 KiB free\.$/);
});

test("a row that is learned whole asks for no answer", () => {
  /** @type {any} */
  const row = { text: "Once upon a time", truth: "Once upon a time", right: false };
  assert.equal(isQuestion(row), false, "an older run repeats the text");
  assert.equal(isQuestion({ ...row, truth: undefined }), false);
  assert.equal(isQuestion({ ...row, truth: "positive" }), true);
});

test("the summary of an evaluation counts the right rows of those that are stored", () => {
  /** @type {any} */
  const rows = [true, false, true].map((right, index) => ({ row: index, text: "?", truth: "yes", right }));
  const text = summaryText({ steps: [8], loss: 0.42642, metrics: { macro_f1: 0.5, odd: null }, rows, of: 9 });
  assert.equal(text, "eval loss 0.426 · macro f1 0.500 · 2 of the 3 rows kept here are right (9 rows were evaluated)");
});
