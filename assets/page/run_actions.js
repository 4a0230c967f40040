// @ts-check
// What can be done with a run: the entries of its menu and what they do.

import { button, element, messageOf, toast } from "./dom.js";
import { Downloads } from "./downloads.js";
import { Menu } from "./menu.js";
import { findRuns, pollNow, runById } from "./polling.js";
import { getOrNull, post } from "./requests.js";
import { isActive } from "./run_state.js";
import { sourceText } from "./run_text.js";

/** @typedef {import("./shapes").ResultStates} ResultStates */
/** @typedef {(name: string, detail: any) => void} Trigger */

/** @type {Pick<ResultStates, "go_on" | "recovered_from"> & { forms: Record<string, { state: string }> }} */
const NOTHING_LEFT = { go_on: null, recovered_from: null, forms: {} };

/**
 * Asks the server for a change of a run and says where it refuses; then the list is asked for anew.
 * @param {string} path
 * @param {any} body
 * @param {() => void} [onDone]
 */
export async function act(path, body, onDone) {
  try {
    await post(path, body);
    pollNow();
    onDone?.();
  } catch (error) {
    toast(messageOf(error));
  }
}

export class RunActions {
  /**
   * @param {string} id of the run
   * @param {Trigger} trigger tells the form of settings to take over
   * @param {(what: "name" | "note") => void} edit opens the field for a name or a note
   * @param {() => string} name of the run as it is shown
   */
  constructor(id, trigger, edit, name) {
    this.id = id;
    this.trigger = trigger;
    this.name = name;
    this.downloads = new Downloads(id, () => this.menu.close());
    this.trainOnBest = this.entry("Train on from its best", () =>
      this.reuse({ model: `run:${id}/best`, revision: null }),
    );
    this.trainOn = this.entry("Train on from its result", () => this.reuse({ model: `run:${id}`, revision: null }));
    this.source = element("p", { class: "tf-small", hidden: true });
    const entries = [this.source, ...this.downloads.nodes, this.trainOnBest, this.trainOn];
    this.results = element("div", { class: "tf-downloads" }, entries);
    this.goOn = this.entry("Go on", () => act(`fork/runs/${id}/go_on`, {}));
    const settings = { class: "tf-button", href: `fork/runs/${id}/settings.json`, download: "" };
    this.menu = new Menu(
      [
        this.entry("Use these settings again", () => this.reuse()),
        this.entry("Rename", () => edit("name")),
        this.entry("Note", () => edit("note")),
        this.entry("Copy as command", () => this.copyCommand()),
        element("a", { ...settings, onclick: () => this.menu.close() }, "Download settings.json"),
        this.goOn,
        this.results,
        this.entry("Delete", () => this.erase()),
      ],
      () => this.askWhatIsLeft(),
    );
    this.offer(NOTHING_LEFT);
  }

  /**
   * @param {string} text
   * @param {() => void} onPress
   */
  entry(text, onPress) {
    return button(text, () => {
      this.menu.close();
      onPress();
    });
  }

  /** Offers what this run has left: asked when the menu opens, for a checkpoint or a result may be gone by now. */
  async askWhatIsLeft() {
    const run = runById(this.id);
    if (!run || isActive(run)) return;
    const states = await this.downloads.ask();
    if (!states || isActive(runById(this.id) ?? run)) return;
    this.offer(states);
    this.menu.place();
  }

  offerNothing() {
    this.offer(NOTHING_LEFT);
  }

  /** @param {typeof NOTHING_LEFT} states */
  offer({ go_on: step, recovered_from: source, forms }) {
    const isLeft = (/** @type {string} */ form) => (forms[form]?.state ?? "none") !== "none";
    this.goOn.hidden = step === null;
    const text = step ? `Go on from update ${step}` : "Begin anew (it left no checkpoint)";
    if (this.goOn.textContent !== text) this.goOn.textContent = text;
    this.source.textContent = sourceText(source);
    this.source.hidden = source === null;
    this.trainOn.hidden = !isLeft("trained");
    this.trainOnBest.hidden = !isLeft("best");
    this.results.hidden = !isLeft("trained");
  }

  async copyCommand() {
    try {
      const answer = await getOrNull(`fork/runs/${this.id}/command`);
      if (!answer) throw new Error("The command of this run could not be read.");
      await navigator.clipboard.writeText(answer.command);
      toast("The command line that trains this run again is in the clipboard.");
    } catch (error) {
      toast(messageOf(error));
    }
  }

  /**
   * Puts the run's settings into the form, some of them changed.
   * @param {{ model?: string, revision?: null }} changes
   */
  async reuse(changes = {}) {
    const settings = await getOrNull(`fork/runs/${this.id}/settings`);
    if (!settings) {
      toast("The settings of this run could not be read.");
      return;
    }
    this.trigger("reuse", { settings: { ...settings, ...changes } });
    const source = changes.model ? "starts from this run's result" : "holds the settings of this run";
    toast(`The form now ${source}.`);
  }

  erase() {
    const restore = () => act(`fork/runs/${this.id}/undelete`, {}, () => findRuns(this.id));
    act(`fork/runs/${this.id}/delete`, {}, () => toast(`Deleted “${this.name()}”.`, "Undo", restore));
  }
}
