// @ts-check
// What a run predicts on its evaluation rows after each evaluation, and its answers to the sample prompts along the
// way.

import { ConfusionMatrix } from "./confusion.js";
import { element } from "./dom.js";
import { plural } from "./format.js";
import { onChange, runById, state } from "./polling.js";
import { getOrNull } from "./requests.js";
import { RunChoice } from "./run_choice.js";

/** @typedef {import("./shapes").PredictionRow} PredictionRow */
/** @typedef {import("./shapes").Predictions} Predictions */
/** @typedef {import("./shapes").Sample} Sample */

/**
 * The orders of the rows: title, and a comparison.
 * @type {Record<string, [title: string, compare: (one: PredictionRow, two: PredictionRow) => number]>}
 */
const ORDERS = {
  wrong: ["highest loss first", (one, two) => (two.loss ?? 0) - (one.loss ?? 0)],
  sure: ["lowest loss first", (one, two) => (one.loss ?? 0) - (two.loss ?? 0)],
  order: ["as in the data", (one, two) => one.row - two.row],
};
const SHOWN_ROWS = 25;
/** A text that is this much longer than its end is a question with an answer, not a text that repeats itself. */
const QUESTION_LENGTH = 24;

/**
 * @param {string} label
 * @param {Node[]} controls
 */
function labelled(label, ...controls) {
  return element("label", { class: "tf-control" }, [element("span", {}, label), ...controls]);
}

/** @param {HTMLElement} root */
export function mountResults(root) {
  const choice = new RunChoice();
  const { select } = choice;
  const slider = element("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": "evaluation at step" });
  const stepText = element("output");
  const options = Object.entries(ORDERS).map(([key, [title]]) => element("option", { value: key }, title));
  const order = element("select", {}, options);
  const numbers = element("p", { class: "tf-small" });
  const confusion = new ConfusionMatrix();
  const tableAttributes = { class: "tf-scroll", tabindex: 0, role: "group", "aria-label": "Evaluation rows" };
  const table = element("div", tableAttributes);
  const samples = element("div", { class: "tf-samples" });
  const section = element("section", { class: "tf-card", "aria-label": "Evaluation rows", hidden: true }, [
    element("h2", {}, "Predictions on the evaluation rows"),
    element("div", { class: "tf-controls" }, [
      labelled("run", select),
      labelled("after step", slider, stepText),
      labelled("order", order),
    ]),
    numbers,
    confusion.node,
    table,
    samples,
  ]);
  root.replaceChildren(section);

  /** @type {Predictions | null} */
  let predictions = null;
  let loadedRun = "";
  let followsNewest = true;

  /** @param {number} [step] the newest where none is named */
  async function load(step) {
    const run = select.value;
    const query = step === undefined ? "" : `?step=${step}`;
    /** @type {Predictions | null} */
    const answer = await getOrNull(`fork/runs/${run}/predictions${query}`);
    if (!answer || run !== select.value) return;
    predictions = answer;
    loadedRun = run;
    const { steps } = answer;
    slider.max = String(Math.max(0, steps.length - 1));
    slider.value = String(Math.max(0, answer.step === undefined ? 0 : steps.indexOf(answer.step)));
    slider.disabled = steps.length < 2;
    draw();
  }

  function draw() {
    const rows = predictions?.rows ?? [];
    stepText.textContent = String(predictions?.step ?? "–");
    numbers.textContent = predictions && rows.length ? summaryText(predictions) : "This run has no evaluation rows.";
    confusion.draw(predictions);
    const sorted = [...rows].sort(ORDERS[order.value][1]);
    table.replaceChildren(...(rows.length ? [rowsTable(sorted.slice(0, SHOWN_ROWS))] : []));
  }

  slider.addEventListener("input", () => {
    const steps = predictions?.steps ?? [];
    const index = Number(slider.value);
    followsNewest = index === steps.length - 1;
    stepText.textContent = String(steps[index]);
    load(steps[index]);
  });
  order.addEventListener("change", draw);
  select.addEventListener("change", () => {
    followsNewest = true;
    load();
    loadSamples();
  });

  async function loadSamples() {
    const run = select.value;
    const answer = await getOrNull(`fork/runs/${run}/samples`);
    if (!answer || run !== select.value) return;
    samples.replaceChildren(...(answer.samples.length ? [timeline(answer.samples)] : []));
  }

  let drawn = "";
  onChange(() => {
    const runs = state.runs.filter((run) => run.eval_loss !== null && run.eval_loss !== undefined);
    section.hidden = runs.length === 0;
    if (!runs.length) return;
    const before = select.value;
    choice.offer(runs);
    if (select.value !== before) followsNewest = true;
    const run = runById(select.value);
    const key = `${select.value}:${run?.eval_loss}:${run?.state}`;
    if (key === drawn) return;
    drawn = key;
    if (followsNewest || loadedRun !== select.value) load(); // a later evaluation of the run that is looked at
    loadSamples();
  });
}

/**
 * The numbers of an evaluation, and how many of the stored rows are right.
 * @param {Predictions} predictions
 */
export function summaryText({ loss, metrics, rows, of: evaluated = 0 }) {
  const numbers = Object.entries({ "eval loss": loss, ...metrics })
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${Number(value).toPrecision(3)}`)
    .join(" · ");
  const more = evaluated > rows.length ? ` (${plural(evaluated, "row")} were evaluated)` : "";
  const questions = rows.filter(isQuestion);
  if (!questions.length) {
    const stored = rows.length === 1 ? "the row kept here is" : `${rows.length} rows kept here are`;
    return `${numbers} · ${stored} learned whole: none has an answer that could be right${more}`;
  }
  const right = questions.filter((row) => row.right).length;
  const stored = `${plural(questions.length, "row")} kept here ${questions.length === 1 ? "is" : "are"}`;
  return `${numbers} · ${right} of the ${stored} right${more}`;
}

/**
 * Whether a row asks for an answer: one that is learned whole has none that could be right or wrong. In older runs such
 * a row repeats its text as the truth.
 * @param {PredictionRow} row
 */
export function isQuestion(row) {
  if (row.truth === undefined) return false;
  const text = row.text.trim();
  const truth = row.truth.trim();
  return row.right || !truth || text.length - truth.length > QUESTION_LENGTH || !text.endsWith(truth);
}

/** @param {PredictionRow[]} rows */
function rowsTable(rows) {
  const columns = {
    written: rows.some((row) => row.written !== undefined),
    chance: rows.some((row) => row.chance !== undefined),
    truth: rows.some(isQuestion),
  };
  const heads = [
    "row",
    "text",
    ...(columns.truth ? ["truth", "prediction"] : ["likeliest token at each place"]),
    ...(columns.written ? ["written"] : []),
    ...(columns.chance ? ["sure"] : []),
    "loss",
  ];
  return element("table", { class: "tf-table tf-predictions" }, [
    element(
      "thead",
      {},
      element(
        "tr",
        {},
        heads.map((head) => element("th", { scope: "col" }, head)),
      ),
    ),
    element(
      "tbody",
      {},
      rows.map((row) => rowLine(row, columns)),
    ),
  ]);
}

/**
 * @param {PredictionRow} row
 * @param {{ written: boolean, chance: boolean, truth: boolean }} columns that the table has
 */
function rowLine(row, columns) {
  const asks = isQuestion(row);
  const text = (/** @type {string} */ value) => element("td", {}, value);
  const number = (/** @type {string} */ value) => element("td", { class: "tf-num" }, value);
  const verdict = asks ? `${row.right ? "✓" : "✗"} ` : "";
  const chance = row.chance === undefined ? "–" : `${(100 * row.chance).toFixed(0)} %`;
  return element("tr", { class: !asks ? "tf-no-question" : row.right ? "tf-right" : "tf-missed" }, [
    number(String(row.row)),
    text(row.text.trim()),
    columns.truth ? text(asks ? String(row.truth).trim() : "–") : null,
    text(verdict + row.prediction.trim()),
    columns.written ? text(row.written?.trim() ?? "–") : null,
    columns.chance ? number(chance) : null,
    number(row.loss === null ? "–" : row.loss.toPrecision(3)),
  ]);
}

/** @param {Sample[]} samples */
function timeline(samples) {
  const prompts = [...new Set(samples.map((sample) => sample.prompt))];
  const lists = prompts.map((prompt) => {
    const lines = samples
      .filter((sample) => sample.prompt === prompt)
      .map(({ step, text }) =>
        element("li", {}, [
          element("strong", {}, `step ${step}`),
          " ",
          element("span", {}, text.trim() || "(an empty answer)"),
        ]),
      );
    return element("details", { open: prompts.length === 1 }, [
      element("summary", {}, prompt),
      element("ol", { class: "tf-timeline" }, lines),
    ]);
  });
  return element("div", {}, [element("h3", {}, "Sample prompts while it trained"), ...lists]);
}
