// Settings by their labels, what stands at the fields of the form, and prompts.

import assert from "node:assert/strict";
import { test } from "node:test";

import { notesByField, refusalReasons } from "../../assets/page/form_notes.js";
import { numberOrText, promptsIn } from "../../assets/page/prompts.js";
import { inPageWords, nameSettings, sentence, settingName, termOf } from "../../assets/page/setting_names.js";

const LABELS = {
  model: "Base model",
  "data.encoding": "Encoding",
  "data.packing": "Packing (joined rows)",
  "method.lora.r": "Rank r",
};
const TERMS = { "data.packing": { false: "no" }, "method.name": { lora: "LoRA" } };

test("messages name settings by their labels on the page", () => {
  nameSettings(LABELS, TERMS);
  assert.equal(inPageWords("set data.encoding, please"), "set “Encoding”, please");
  assert.equal(inPageWords("data.packing to false"), "“Packing: no”");
  assert.equal(inPageWords("data.packing to 3"), "“Packing” to 3");
  assert.equal(
    inPageWords("the file data.encoding.csv and the model stay"),
    "the file data.encoding.csv and the model stay",
  );
});

test("a problem is told with the label of its setting before it", () => {
  nameSettings(LABELS, TERMS);
  assert.equal(sentence({ field: "method.lora.r", message: "0 is too small." }), "Rank r: 0 is too small.");
  assert.equal(sentence({ field: "nowhere", message: "No." }), "No.");
  assert.equal(sentence({ message: "No." }), "No.");
});

test("a setting without a label has the last word of its path as its name", () => {
  nameSettings(LABELS, TERMS);
  assert.equal(settingName("data.packing"), "Packing");
  assert.equal(settingName("save.best_by"), "Best by");
  assert.equal(termOf("method.name", "lora"), "LoRA");
  assert.equal(termOf("method.name", "other"), "other");
});

test("a field has its hints, at most two notices, and no notice beside a problem", () => {
  nameSettings({}, {});
  const notice = (/** @type {string} */ id, /** @type {string} */ message) => ({ field: "", count: null, id, message });
  const notices = [notice("f-a", "1"), notice("f-a", "2"), notice("f-a", "3"), notice("f-b", "4")];
  /** @type {any} */
  const value = { hints: { "f-a": "hint", "f-c": "" }, problems: [{ id: "f-b", field: "", message: "wrong" }] };
  const notes = notesByField(value, notices, {});
  const texts = notes.get("f-a")?.map(({ text }) => text);
  assert.deepEqual(texts, ["hint", "1", "2", "1 more under “Before you start”."]);
  assert.deepEqual(notes.get("f-b"), [{ kind: "tf-problem", text: "wrong" }]);
  assert.equal(notes.has("f-c"), false);
});

test("methods that are refused for one reason are named in one sentence", () => {
  nameSettings(LABELS, TERMS);
  assert.deepEqual(refusalReasons({ lora: "no", galore: "no", ia3: "why" }), [
    "Greyed: LoRA, galore (no).",
    "Greyed: ia3 (why).",
  ]);
});

test("a number is sent as one, and anything else as it was typed", () => {
  for (const [typed, value] of [
    [" 32 ", 32],
    ["1e-3", 0.001],
    [".5", 0.5],
    ["-2", -2],
  ]) {
    assert.equal(numberOrText(/** @type {string} */ (typed)), value);
  }
  for (const typed of ["", "many", "1,5", "0x10", "Infinity"]) assert.equal(numberOrText(typed), typed);
});

test("prompts are read one a line, or from JSON lines", () => {
  assert.deepEqual(promptsIn("\uFEFFone\r\n\n two \n", "a.txt"), ["one", " two "]);
  assert.deepEqual(promptsIn('{"prompt": "x"}\nplain', "a.jsonl"), ["x", "plain"]);
  assert.throws(() => promptsIn(" \n", "a.txt"), /a\.txt holds no prompts/);
  assert.throws(() => promptsIn('ok\n{"text": "x"}', "a.jsonl"), /Line 2 of a\.jsonl is no JSON object/);
  assert.throws(() => promptsIn("x\n".repeat(65), "a.txt"), /holds 65 prompts; ask at most 64/);
});
