// @ts-check
// A list of runs to choose one from. It follows the newest run that this page shows, until a person has chosen.

import { element } from "./dom.js";
import { state } from "./polling.js";
import { isShown } from "./run_state.js";
import { nameOf } from "./run_text.js";

/** @typedef {import("./shapes").RunLine} RunLine */

export class RunChoice {
  constructor() {
    this.select = element("select");
    this.chosen = false; // by a person
    this.listed = "";
    this.select.addEventListener("change", () => {
      this.chosen = true;
    });
  }

  /**
   * Offers these runs, the newest first.
   * @param {RunLine[]} runs
   */
  offer(runs) {
    const listed = runs.map((run) => `${run.run_id}/${run.name}`).join("|");
    const before = this.select.value;
    const newest = runs.find((run) => isShown(state, run)) ?? runs[0];
    if (listed !== this.listed) {
      this.listed = listed;
      this.select.replaceChildren(...runs.map((run) => element("option", { value: run.run_id }, nameOf(run))));
    }
    this.chosen &&= runs.some((run) => run.run_id === before); // the chosen one may have been deleted
    this.select.value = this.chosen ? before : (newest?.run_id ?? "");
  }
}
