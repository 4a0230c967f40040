// @ts-check
// What a run has left, in the forms it has: what is there is downloaded, what is not is made first, and one sees that.

import { button, element, messageOf, sleep, toast } from "./dom.js";
import { getOrNull, post } from "./requests.js";

/** @typedef {import("./shapes").ResultStates} ResultStates */
/** @typedef {"trained" | "best" | "merged" | "best-merged"} Form */

/** @type {Record<Form, string>} */
const TEXTS = {
  trained: "Download zip",
  best: "Download the best weights",
  merged: "Download merged model",
  "best-merged": "Download the best, merged",
};
const POLL_MILLISECONDS = 500;

/** The entries of a run's menu that download something. */
export class Downloads {
  /**
   * @param {string} id of the run
   * @param {() => void} onDownload is called when a download begins
   */
  constructor(id, onDownload) {
    this.path = `fork/runs/${id}`;
    this.onDownload = onDownload;
    /** @type {Map<Form, HTMLButtonElement>} */
    this.buttons = new Map();
    for (const [key, text] of Object.entries(TEXTS)) {
      const form = /** @type {Form} */ (key);
      this.buttons.set(
        form,
        button(text, () => this.get(form), { hidden: true }),
      );
    }
    this.nodes = [...this.buttons.values()];
    /** @type {Set<Form>} */
    this.inTheMaking = new Set(); // for a download from here
  }

  /**
   * What the run has left; null where the server does not say. Asked when the menu opens, for a result may be gone by
   * now, and a merged model is offered only where there can be one.
   * @returns {Promise<ResultStates | null>}
   */
  async ask() {
    const states = await getOrNull(`${this.path}/results`);
    if (states) this.update(states);
    return states;
  }

  /** @param {ResultStates} states */
  update({ forms }) {
    for (const [form, entry] of this.buttons) {
      const { state } = forms[form];
      const isMaking = state === "making";
      entry.hidden = state === "none";
      entry.disabled = isMaking;
      entry.setAttribute("aria-busy", String(isMaking));
      entry.textContent = isMaking ? `${TEXTS[form]}: being made…` : TEXTS[form];
    }
  }

  /**
   * Has the result made where it is not there yet, and downloads it.
   * @param {Form} form
   */
  async get(form) {
    if (this.inTheMaking.has(form)) return;
    this.inTheMaking.add(form);
    try {
      await this.make(form);
      const link = element("a", { href: `${this.path}/files.zip?form=${form}`, download: "" });
      document.body.append(link);
      link.click();
      link.remove();
      this.onDownload();
    } catch (error) {
      toast(messageOf(error));
    }
    this.inTheMaking.delete(form);
  }

  /**
   * Waits until the server has the result; raises an error with its message where it cannot be made.
   * @param {Form} form
   */
  async make(form) {
    /** @type {ResultStates} */
    let states = await post(`${this.path}/results`, { form });
    this.update(states);
    while (states.forms[form].state === "making") {
      await sleep(POLL_MILLISECONDS);
      states = (await this.ask()) ?? states;
    }
    const { state, message } = states.forms[form];
    if (state !== "ready") throw new Error(message ?? "It was not made.");
  }
}
