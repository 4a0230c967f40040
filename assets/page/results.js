// What a run says on its evaluation rows after each evaluation, and its answers to the sample prompts along the way.

import { begin, onChange, runById, state } from "./live.js";
import { element } from "./dom.js";
import { plural } from "./notices.js";
import { got } from "./requests.js";
import { RunChoice } from "./run_choice.js";

const SORTS = {
  wrong: ["most wrong first", (one, two) => (two.loss ?? 0) - (one.loss ?? 0)],
  sure: ["least wrong first", (one, two) => (one.loss ?? 0) - (two.loss ?? 0)],
  order: ["as in the data", (one, two) => one.row - two.row],
};
const SHOWN = 25;

export function mountResults(root) {
  const choice = new RunChoice(),
    { select } = choice;
  const slider = element("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": "evaluation at step" });
  const where = element("output");
  const sort = element(
    "select",
    {},
    Object.entries(SORTS).map(([key, [title]]) => element("option", { value: key }, title)),
  );
  const numbers = element("p", { class: "tf-small" });
  const matrix = element("div", { class: "tf-scroll" });
  const table = element("div", { class: "tf-scroll", tabindex: 0, role: "group", "aria-label": "Evaluation rows" });
  const samples = element("div", { class: "tf-samples" });
  const card = element("section", { class: "tf-card", "aria-label": "Evaluation rows", hidden: true }, [
    element("h2", {}, "What it says on the evaluation rows"),
    element("div", { class: "tf-controls" }, [
      element("label", { class: "tf-control" }, [element("span", {}, "run"), select]),
      element("label", { class: "tf-control" }, [element("span", {}, "after step"), slider, where]),
      element("label", { class: "tf-control" }, [element("span", {}, "order"), sort]),
    ]),
    numbers,
    matrix,
    table,
    samples,
  ]);
  root.replaceChildren(card);

  let steps = [],
    found = null,
    follow = true,
    key = "";
  async function load(step) {
    const run = select.value,
      wanted = `${run}/${step ?? ""}`;
    const answer = await got(`fork/runs/${run}/predictions${step === undefined ? "" : `?step=${step}`}`);
    if (!answer || run !== select.value) return;
    found = answer;
    steps = found.steps;
    key = wanted;
    slider.max = Math.max(0, steps.length - 1);
    slider.value = Math.max(0, steps.indexOf(found.step));
    slider.disabled = steps.length < 2;
    draw();
  }
  function draw() {
    const rows = found?.rows ?? [];
    where.textContent = found?.step ?? "–";
    numbers.textContent = rows.length ? summary(found) : "This run has no evaluation rows.";
    matrix.replaceChildren(...(found?.confusion ? [confusionTable(found)] : []));
    table.replaceChildren(...(rows.length ? [rowsTable([...rows].sort(SORTS[sort.value][1]).slice(0, SHOWN))] : []));
  }
  slider.addEventListener("input", () => {
    follow = Number(slider.value) === steps.length - 1;
    where.textContent = steps[slider.value];
    load(steps[slider.value]);
  });
  sort.addEventListener("change", draw);
  select.addEventListener("change", () => {
    follow = true;
    load();
    loadSamples();
  });

  async function loadSamples() {
    const run = select.value;
    const answer = await got(`fork/runs/${run}/samples`);
    if (!answer || run !== select.value) return;
    const said = answer.samples;
    samples.replaceChildren(...(said.length ? [timeline(said)] : []));
  }

  let evals = "";
  onChange(() => {
    const able = state.runs.filter((run) => run.eval_loss !== null && run.eval_loss !== undefined);
    card.hidden = able.length === 0;
    if (!able.length) return;
    const before = select.value;
    choice.offer(able);
    if (select.value !== before) follow = true;
    const run = runById(select.value),
      mark = `${select.value}:${run?.eval_loss}:${run?.state}`;
    if (mark === evals) return;
    evals = mark;
    if (follow || !key.startsWith(select.value + "/")) load(); // a later evaluation of the run that is looked at
    loadSamples();
  });
  begin();
}

function summary(found) {
  const metrics = Object.entries({ "eval loss": found.loss, ...found.metrics })
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${Number(value).toPrecision(3)}`);
  const asked = found.rows.filter(isAsked),
    right = asked.filter((row) => row.right).length;
  const of = found.of > found.rows.length ? ` (${plural(found.of, "row")} were evaluated)` : "";
  if (!asked.length)
    return `${metrics.join(" · ")} · ${found.rows.length === 1 ? "the row kept here is" : `${found.rows.length} rows kept here are`} learned whole: none has an answer that could be right${of}`;
  return `${metrics.join(" · ")} · ${right} of the ${plural(asked.length, "row")} kept here ${asked.length === 1 ? "is" : "are"} right${of}`;
}

/** A row that is learned whole has no answer to be right or wrong; runs of before that was told repeat its text as truth. */
function isAsked(row) {
  if (row.truth === undefined) return false;
  const text = row.text.trim(),
    truth = row.truth.trim();
  return row.right || !truth || text.length - truth.length > 24 || !text.endsWith(truth);
}

function rowsTable(rows) {
  const written = rows.some((row) => row.written !== undefined),
    chance = rows.some((row) => row.chance !== undefined);
  const asked = rows.some(isAsked);
  const heads = [
    "row",
    "text",
    ...(asked ? ["truth", "prediction"] : ["likeliest token at each place"]),
    ...(written ? ["written"] : []),
    ...(chance ? ["sure"] : []),
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
      rows.map((row) =>
        element("tr", { class: !isAsked(row) ? "tf-unasked" : row.right ? "tf-right" : "tf-missed" }, [
          element("td", { class: "tf-num" }, String(row.row)),
          element("td", {}, row.text.trim()),
          ...(asked ? [element("td", {}, isAsked(row) ? row.truth.trim() : "–")] : []),
          element("td", {}, isAsked(row) ? `${row.right ? "✓" : "✗"} ${row.prediction.trim()}` : row.prediction.trim()),
          ...(written ? [element("td", {}, row.written?.trim() ?? "–")] : []),
          ...(chance
            ? [
                element(
                  "td",
                  { class: "tf-num" },
                  row.chance === undefined ? "–" : `${(100 * row.chance).toFixed(0)} %`,
                ),
              ]
            : []),
          element("td", { class: "tf-num" }, row.loss === null ? "–" : row.loss.toPrecision(3)),
        ]),
      ),
    ),
  ]);
}

function confusionTable({ labels, confusion }) {
  const most = Math.max(1, ...confusion.flat());
  return element("table", { class: "tf-table tf-confusion" }, [
    element("caption", {}, "Rows are the truth, columns what it said"),
    element(
      "thead",
      {},
      element(
        "tr",
        {},
        ["", ...labels].map((label) => element("th", { scope: "col" }, label)),
      ),
    ),
    element(
      "tbody",
      {},
      confusion.map((line, i) =>
        element("tr", {}, [
          element("th", { scope: "row" }, labels[i]),
          ...line.map((count, j) => {
            const cell = element("td", { class: "tf-num" }, String(count));
            cell.style.setProperty("--share", String(count / most));
            cell.dataset.right = String(i === j);
            return cell;
          }),
        ]),
      ),
    ),
  ]);
}

function timeline(said) {
  const prompts = [...new Set(said.map((one) => one.prompt))];
  return element("div", {}, [
    element("h3", {}, "Sample prompts while it trained"),
    ...prompts.map((prompt) =>
      element("details", { open: prompts.length === 1 }, [
        element("summary", {}, prompt),
        element(
          "ol",
          { class: "tf-timeline" },
          said
            .filter((one) => one.prompt === prompt)
            .map((one) =>
              element("li", {}, [
                element("strong", {}, `step ${one.step}`),
                " ",
                element("span", {}, one.text.trim() || "(an empty answer)"),
              ]),
            ),
        ),
      ]),
    ),
  ]);
}
