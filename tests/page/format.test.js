// Numbers as a person reads them, beside expectations written by hand.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  bytes,
  count,
  countInWords,
  duration,
  learningRate,
  plural,
  shortCount,
  signed,
  significant,
} from "../../assets/page/format.js";

/**
 * @param {(value: any) => string} format
 * @param {[any, string][]} examples
 */
function check(format, examples) {
  for (const [value, text] of examples) assert.equal(format(value), text, `of ${value}`);
}

test("bytes have three digits and a binary unit", () => {
  check(bytes, [
    [0, "0 B"],
    [1, "1 B"],
    [1023, "1023 B"],
    [1024, "1.00 KiB"],
    [1536, "1.50 KiB"],
    [102_400, "100 KiB"],
    [30_143_944, "28.7 MiB"],
    [16 * 2 ** 30, "16.0 GiB"],
    [3 * 2 ** 40, "3.00 TiB"],
    [5000 * 2 ** 40, "5000 TiB"],
  ]);
});

test("bytes that nobody knows are a dash", () => {
  check(bytes, [
    [null, "–"],
    [undefined, "–"],
  ]);
});

test("a duration is given in seconds up to 90 s, in minutes up to 90 min, then in hours", () => {
  check(duration, [
    [0, "1 s"],
    [0.2, "1 s"],
    [59.6, "60 s"],
    [89, "89 s"],
    [90, "2 min"],
    [600, "10 min"],
    [5399, "90 min"],
    [5400, "1.5 h"],
    [36_000, "10.0 h"],
  ]);
});

test("a duration that nobody knows is no text", () => {
  check(duration, [
    [null, ""],
    [undefined, ""],
    [Infinity, ""],
    [NaN, ""],
  ]);
});

test("counts have commas between the thousands", () => {
  check(count, [
    [0, "0"],
    [999, "999"],
    [1000, "1,000"],
    [1_234_567.4, "1,234,567"],
  ]);
});

test("a noun is in the plural but for one", () => {
  assert.equal(plural(0, "row"), "0 rows");
  assert.equal(plural(1, "row"), "1 row");
  assert.equal(plural(1200, "row"), "1,200 rows");
  assert.equal(plural(3, "more class", "more classes"), "3 more classes");
});

test("large counts are written in words or with a letter", () => {
  check(countInWords, [
    [2_662_888, "2.66 million"],
    [1_240_000_000, "1.24 billion"],
    [45_000, "45,000"],
  ]);
  check(shortCount, [
    [999, "999"],
    [24_400, "24.4k"],
    [2_662_888, "2.66M"],
    [1_240_000_000, "1.24B"],
  ]);
});

test("a loss has four significant digits", () => {
  check(significant, [
    [0.354912, "0.3549"],
    [8, "8.000"],
    [null, "–"],
  ]);
});

test("a learning rate is written as people write it", () => {
  check(learningRate, [
    [0.003, "0.003"],
    [0.0015, "0.0015"],
    [3e-4, "3e-4"],
    [2.5e-5, "2.5e-5"],
    [null, "–"],
  ]);
});

test("a percentage has its sign unless it rounds to zero", () => {
  check(signed, [
    [2.04, "+2.0"],
    [-2.04, "−2.0"],
    [0.04, "0.0"],
    [-0.04, "0.0"],
  ]);
});
