// @ts-check
// One line of the table of runs: built once, then only its changing texts are set, so that focus and typing survive.

import { button, element, setText } from "./dom.js";
import { bytes, learningRate, plural, signed, significant } from "./format.js";
import { noticeList } from "./notices.js";
import { lastPoint, runById, setShown, state } from "./polling.js";
import { act, RunActions } from "./run_actions.js";
import { lookOf } from "./run_look.js";
import { isActive, isShown } from "./run_state.js";
import { estimateError, lineage, methodText, nameOf, phaseText, stepsMade, timeLeft, trains } from "./run_text.js";

/** @typedef {import("./shapes").ChartConfig} ChartConfig */
/** @typedef {import("./shapes").Notice} Notice */
/** @typedef {import("./shapes").RunLine} RunLine */
/** @typedef {import("./run_actions.js").Trigger} Trigger */

export const HEADS = [
  "show",
  "run",
  "state",
  "updates",
  "loss",
  "best eval",
  "data",
  "method",
  "lr",
  "batch",
  "memory",
  "",
];
export const NUMBER_HEADS = new Set(["loss", "best eval", "lr", "batch", "memory"]);

/**
 * @param {any} children
 * @param {Record<string, any>} attributes
 */
function cell(children, attributes = {}) {
  return element("td", { role: "cell", ...attributes }, children);
}

/** @param {string} head */
function headedCell(head, children = /** @type {Node[]} */ ([])) {
  return cell(children, { class: NUMBER_HEADS.has(head) ? "tf-num" : null, "data-head": head });
}

export class RunRow {
  /**
   * @param {string} id
   * @param {ChartConfig} config
   * @param {Trigger} trigger
   */
  constructor(id, config, trigger) {
    this.id = id;
    this.config = config;
    const name = () => this.name.textContent ?? "";
    this.actions = new RunActions(id, trigger, (what) => this.edit(what), name);
    this.check = element("input", { type: "checkbox", onchange: () => setShown(id, this.check.checked) });
    this.dot = element("span", { class: "tf-dot tf-run-dot" });
    this.name = element("span", { class: "tf-name" });
    this.note = element("span", { class: "tf-note" });
    this.notices = new NoticeRow(id);
    this.nameCell = cell(
      element("div", { class: "tf-names" }, [
        this.name,
        element("span", { class: "tf-note" }, id),
        this.note,
        this.notices.opener,
      ]),
      { class: "tf-name-cell" },
    );
    this.chip = element("span", { class: "tf-chip" });
    this.phase = element("span", { class: "tf-phase" });
    this.bar = element("span");
    const meter = { class: "tf-bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 };
    this.meter = element("span", meter, this.bar);
    this.updates = element("span", { class: "tf-count" });
    this.loss = headedCell("loss");
    this.bestEval = headedCell("best eval");
    this.data = element("span");
    this.task = element("span", { class: "tf-note" });
    this.dataCell = headedCell("data", [element("div", { class: "tf-words" }, [this.data, this.task])]);
    this.method = element("span");
    this.otherSettings = element("span", { class: "tf-note" });
    const methodWords = element("div", { class: "tf-words" }, [this.method, this.otherSettings]);
    this.learningRate = headedCell("lr");
    this.batch = headedCell("batch");
    this.measured = element("span");
    this.expected = element("span");
    this.error = element("span");
    const estimate = element("span", { class: "tf-note" }, [this.expected, " ", this.error]);
    this.memory = headedCell("memory", [element("div", { class: "tf-bytes" }, [this.measured, estimate])]);
    this.stop = button("Stop", () => this.stopRun(), { class: "tf-stop" });
    this.node = element("tr", { "data-run": id, role: "row" }, [
      cell(element("label", { class: "tf-check" }, [this.check, this.dot])),
      this.nameCell,
      cell(element("div", { class: "tf-state" }, [this.chip, this.phase]), { class: "tf-state-cell" }),
      cell(element("div", { class: "tf-progress" }, [this.meter, this.updates]), { class: "tf-progress-cell" }),
      this.loss,
      this.bestEval,
      this.dataCell,
      headedCell("method", [methodWords]),
      this.learningRate,
      this.batch,
      this.memory,
      cell([this.stop, this.actions.menu.node], { class: "tf-actions" }),
    ]);
  }

  /**
   * Puts the line and that of its notices before a node of the table's body.
   * @param {HTMLElement} body
   * @param {Node | null} before
   */
  insert(body, before) {
    body.insertBefore(this.node, before);
    body.insertBefore(this.notices.node, before);
  }

  remove() {
    this.actions.menu.node.open = false;
    this.node.remove();
    this.notices.node.remove();
  }

  stopRun() {
    this.stop.disabled = true;
    act(`fork/runs/${this.id}/stop`, {});
  }

  /**
   * A field in the line, for a new name or note; Enter and leaving it store, Escape does not.
   * @param {"name" | "note"} what
   */
  edit(what) {
    const text = runById(this.id)?.[what] ?? "";
    const label = what === "name" ? "New name" : "Note";
    const input = element("input", { type: "text", class: "tf-edit", "aria-label": label, value: text });
    let isOpen = true;
    const end = (/** @type {boolean} */ stores) => {
      if (!isOpen) return;
      isOpen = false;
      input.remove();
      const action = what === "name" ? "rename" : "note";
      if (stores && input.value !== text) act(`fork/runs/${this.id}/${action}`, { [what]: input.value });
      this.actions.menu.focus();
    };
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.preventDefault(); // the same key press must not go on to the button that gets the focus
      end(event.key === "Enter");
    });
    input.addEventListener("blur", () => end(true));
    this.nameCell.append(input);
    input.focus();
    input.select();
  }

  /**
   * @param {RunLine} run
   * @param {((run: RunLine) => string | undefined)[]} differing settings that this run's line names
   */
  update(run, differing) {
    const name = nameOf(run);
    const isGoing = isActive(run);
    const last = lastPoint(run.run_id);
    setText(this.name, name);
    setText(this.note, [lineage(run, runById), run.note].filter(Boolean).join(" · "));
    this.notices.update(run.plan.notices ?? [], name);
    this.check.setAttribute("aria-label", `Show ${name}`);
    this.check.checked = isShown(state, run);
    const { color, lineIndex } = lookOf(run, this.config.palette);
    this.dot.style.setProperty("--run", color);
    this.dot.dataset.line = String(lineIndex);
    this.chip.dataset.state = run.state;
    setText(this.chip, run.state === "finished" ? "done" : run.state);
    setText(this.phase, phaseText(run, last));
    this.updateProgress(run, name);
    this.updateLosses(run);
    setText(this.method, methodText(run, this.config.methods));
    setText(
      this.otherSettings,
      differing
        .map((words) => words(run))
        .filter(Boolean)
        .join(", "),
    );
    setText(this.data, run.data_name ?? run.settings.data.source);
    setText(this.task, this.config.tasks[run.settings.task] ?? run.settings.task);
    this.dataCell.title = run.settings.data.source;
    const { learning_rate: rate, effective_batch: batch } = run.plan.derived;
    setText(this.learningRate, trains(run) ? learningRate(rate) : "–");
    setText(this.batch, trains(run) ? String(batch ?? "–") : "–");
    this.updateMemory(run, isGoing, last?.peak_bytes);
    this.stop.hidden = !isGoing;
    if (!isGoing) this.stop.disabled = false;
    this.stop.setAttribute("aria-label", `Stop ${name}`);
    this.actions.menu.name(`Actions for ${name}`);
    if (isGoing) this.actions.offerNothing();
  }

  /** @param {RunLine} run */
  updateLosses(run) {
    setText(this.loss, significant(lastPoint(run.run_id)?.loss ?? run.loss));
    const losses = (state.series.get(run.run_id)?.eval ?? []).flatMap(({ loss }) => (loss === null ? [] : [loss]));
    setText(this.bestEval, significant(losses.length ? Math.min(...losses) : run.best_eval));
  }

  /**
   * What was measured so far, what was estimated, and of a finished run how far apart they are.
   * @param {RunLine} run
   * @param {boolean} isGoing
   * @param {number | null | undefined} latest bytes, as the last update tells
   */
  updateMemory(run, isGoing, latest) {
    const measured = run.peak_bytes ?? latest;
    const expected = run.estimate?.total_bytes;
    const error = estimateError(run);
    const percent = error === null ? "" : `${signed(error)} %`;
    setText(this.measured, measured ? bytes(measured) : isGoing ? "" : "not measured");
    setText(this.expected, expected ? `est. ${bytes(expected)}${percent && ","}` : "");
    setText(this.error, percent);
    this.memory.title = run.estimate?.kind ? `the estimate was ${run.estimate.kind}` : "";
  }

  /**
   * @param {RunLine} run
   * @param {string} name
   */
  updateProgress(run, name) {
    const last = lastPoint(run.run_id);
    const step = stepsMade(run, last);
    const total = trains(run) ? run.total_steps : 0;
    const percent = total ? Math.min(100, (100 * step) / total) : 0;
    this.bar.style.width = `${percent}%`;
    this.meter.setAttribute("aria-valuenow", String(Math.round(percent)));
    this.meter.setAttribute("aria-label", `Progress of ${name}`);
    setText(this.updates, total ? `${step}/${total}${timeLeft(run, last)}` : "");
  }
}

/** The notices that the plan gave before Start, as they are stored with the run: a line of their own under its line. */
class NoticeRow {
  /** @param {string} id */
  constructor(id) {
    this.key = "";
    this.opener = element("button", {
      type: "button",
      class: "tf-opener",
      "aria-expanded": "false",
      "aria-controls": `notices-${id}`,
      hidden: true,
      onclick: () => this.open(Boolean(this.node.hidden)),
    });
    this.body = cell([], { colspan: HEADS.length });
    this.node = element("tr", { role: "row", class: "tf-notice-row", id: `notices-${id}`, hidden: true }, this.body);
  }

  /** @param {boolean} isOpen */
  open(isOpen) {
    this.node.hidden = !isOpen;
    this.opener.setAttribute("aria-expanded", String(isOpen));
  }

  /**
   * @param {Notice[]} notices
   * @param {string} name
   */
  update(notices, name) {
    const key = JSON.stringify([notices, name]);
    if (key === this.key) return;
    this.key = key;
    const text = notices.length ? plural(notices.length, "notice") : "";
    this.opener.hidden = !text;
    setText(this.opener, text);
    this.opener.setAttribute("aria-label", `${text}: notices before Start of ${name}`);
    if (!text) this.open(false);
    this.body.replaceChildren(element("h3", {}, "Notices before Start"), noticeList(notices));
  }
}
