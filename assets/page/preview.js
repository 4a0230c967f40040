// @ts-check
// What the settings mean before Start: the tiles, the memory bar, the network, and what is wrong.

import { element } from "./dom.js";
import { drawFieldNotes, goToField, goToFirstProblem, greyMethods, isFieldVisible } from "./form_notes.js";
import { awaitTable, memoryDetails } from "./memory.js";
import { drawMemoryBar } from "./memory_bar.js";
import { NetworkSection } from "./network.js";
import { BeforeStart } from "./notices.js";
import { onChange } from "./polling.js";
import { isActive } from "./run_state.js";
import { sentence } from "./setting_names.js";

/** @typedef {import("./shapes").PlacedNotice} PlacedNotice */
/** @typedef {import("./shapes").PreviewValue} PreviewValue */
/** @typedef {import("./shapes").Tile} Tile */

const OLD = "These numbers belong to the last settings that could be read.";
const ASK_AGAIN = 400; // milliseconds, while all rows of a large file are read

/**
 * @param {HTMLElement} root
 * @param {{ value: PreviewValue }} props
 * @param {(name: string, onNewValue: () => void) => void} watch
 * @param {(name: string, detail: any) => void} trigger
 * @param {(value: any) => void} fillForm puts settings into the form
 */
export function mountPreview(root, props, watch, trigger, fillForm) {
  const tiles = element("div", { class: "tf-tiles" });
  const memory = element("section", { class: "tf-card tf-memory", "aria-label": "Estimated memory" });
  const network = new NetworkSection();
  const general = element("div", { class: "tf-general", role: "alert" });
  const old = element("p", { class: "tf-old tf-small", hidden: true }, OLD);
  const details = memoryDetails((settings) => fillForm({ settings, device: props.value.outlook?.device.name }));
  const beforeStart = new BeforeStart();
  document.getElementById("tf-before-start")?.replaceChildren(beforeStart.node);
  // what is said here has its line from the beginning: the numbers under it stay where they are while a person types
  const status = element("div", { class: "tf-status" }, [general, old]);
  const section = element("div", { class: "tf-preview" }, [status, tiles, memory, network.node]);
  root.replaceChildren(section);

  const askAgain = () => trigger("traced", {});
  let stopWaiting = () => {};
  /** @type {number | undefined} */
  let readingTimer;
  const last = new LastNotices();

  function draw() {
    const value = props.value;
    if (!value || typeof value !== "object") return;
    section.classList.toggle("tf-stale", value.problems.length > 0 || value.reading);
    clearTimeout(readingTimer);
    if (value.reading) readingTimer = setTimeout(askAgain, ASK_AGAIN);
    if (value.tiles) tiles.replaceChildren(...value.tiles.map(tile));
    if (value.memory) {
      drawMemoryBar(memory, value.memory);
      memory.append(details.node);
    }
    if (value.outlook) {
      details.show(value.outlook, value.device);
      stopWaiting();
      stopWaiting = value.outlook.pending ? awaitTable(value.outlook, value.device, askAgain) : () => {};
    }
    if (value.network) network.draw(value.network, value.method);
    network.showOnlyFor(value.method);
    old.hidden = value.problems.length === 0 || general.children.length > 0;
    last.update(value);
    beforeStart.show(last.shown, last.isCurrent, last.areOfOthers ? value.problems.map(sentence) : null);
    drawNotes();
    if (value.pressed) goToFirstProblem(value);
  }

  function drawNotes() {
    if (!props.value?.problems) return;
    drawFieldNotes(props.value, last.shown, last.refused);
    greyMethods(last.refused);
    drawGeneral(props.value);
  }

  /**
   * What concerns no field; and what is wrong in one that is not on the page now, or in a part of the form that can be
   * closed. Those stay here when it is opened: their field may be far out of sight.
   * @param {PreviewValue} value
   */
  function drawGeneral({ general: others, problems }) {
    const unseen = problems.filter((problem) => problem.within.length > 0 || !isFieldVisible(problem));
    const key = JSON.stringify([others, unseen]);
    if (key === general.dataset.key) return;
    general.dataset.key = key;
    const opener = (/** @type {import("./shapes").FieldProblem} */ problem) =>
      element("button", { type: "button", class: "tf-opener", onclick: () => goToField(problem) }, "Show the field");
    general.replaceChildren(
      ...others.map((problem) => element("p", { class: "tf-problem" }, sentence(problem))),
      ...unseen.map((problem) => element("p", { class: "tf-problem" }, [sentence(problem), " ", opener(problem)])),
    );
    old.hidden = problems.length === 0 || general.children.length > 0;
  }

  // a part of the form that is opened is made anew, without what was said at its fields
  const form = document.getElementById("tf-form");
  let frame = 0;
  const redrawNotes = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(drawNotes);
  };
  const changes = { subtree: true, childList: true, attributes: true, attributeFilter: ["class", "style"] };
  if (form) new MutationObserver(redrawNotes).observe(form, changes);
  watch("value", draw);
  draw();

  // how long an update takes is known when a run has ended
  let going = new Set();
  onChange(({ runs }) => {
    const now = new Set(runs.filter(isActive).map((run) => run.run_id));
    const hasEnded = runs.some((run) => going.has(run.run_id) && !now.has(run.run_id));
    going = now;
    if (hasEnded) askAgain();
  });
}

/** The notices and refused methods of the last settings that could be read, for as long as the next ones cannot. */
class LastNotices {
  constructor() {
    /** @type {PlacedNotice[]} */
    this.notices = [];
    this.subject = ""; // the model, data and task that the notices are about
    /** @type {Record<string, string>} */
    this.refused = {};
    this.refusedSubject = "";
    this.isCurrent = false; // whether they are those of the settings in the form
    this.areOfOthers = false; // whether they are about another model, data set or task than the form's
  }

  /** Those that are about what stands in the form now. */
  get shown() {
    return this.areOfOthers ? [] : this.notices;
  }

  /** @param {PreviewValue} preview */
  update(preview) {
    const subject = JSON.stringify(preview.of);
    this.isCurrent = Boolean(preview.tiles);
    if (this.isCurrent) {
      this.notices = preview.notices;
      this.subject = subject;
    }
    const isMore = Object.keys(preview.refused).length > Object.keys(this.refused).length;
    if (this.isCurrent || subject !== this.refusedSubject || isMore) {
      this.refused = preview.refused;
      this.refusedSubject = subject;
    }
    this.areOfOthers = !this.isCurrent && subject !== this.subject;
  }
}

/** @param {Tile} tile */
function tile({ value, label, title }) {
  return element("div", { class: "tf-tile", title: title ?? null }, [
    element("strong", {}, value),
    element("span", {}, label),
  ]);
}
