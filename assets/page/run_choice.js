// A list of runs to choose one from. It follows the newest run that this page shows, until a person has chosen.

import { state } from "./live.js";
import { element } from "./dom.js";

export class RunChoice {
  constructor() {
    this.select = element("select");
    this.chosen = false; // by a person
    this.listed = "";
    this.select.addEventListener("change", () => {
      this.chosen = true;
    });
  }

  /** Offers these runs, the newest first. */
  offer(runs) {
    const now = runs.map((run) => `${run.run_id}/${run.name}`).join("|");
    const before = this.select.value,
      newest = runs.find((run) => state.shown?.has(run.run_id)) ?? runs[0];
    if (now !== this.listed) {
      this.listed = now;
      this.select.replaceChildren(
        ...runs.map((run) => element("option", { value: run.run_id }, run.name || run.run_id)),
      );
    }
    this.chosen &&= runs.some((run) => run.run_id === before); // the chosen one may have been deleted
    this.select.value = this.chosen ? before : (newest?.run_id ?? "");
  }
}
