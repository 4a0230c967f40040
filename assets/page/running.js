// @ts-check
// What trains now, over the button Start: its progress, and Stop. It stays in sight while the page is scrolled.

import { button, element, messageOf, setText, toast } from "./dom.js";
import { plural } from "./format.js";
import { lastPoint, onChange, pollNow, state } from "./polling.js";
import { post } from "./requests.js";
import { isActive, isShown } from "./run_state.js";
import { nameOf, queueText, stepsMade, timeLeft } from "./run_text.js";

/** @typedef {import("./shapes").RunLine} RunLine */

/** @param {HTMLElement} root */
export function mountRunning(root) {
  const name = element("strong");
  const progress = element("span", { class: "tf-count" });
  const queue = element("p", { class: "tf-small" });
  let id = "";
  const stop = button("Stop", stopRun, { class: "tf-stop" });
  const section = element("section", { class: "tf-running", "aria-label": "Running now", hidden: true }, [
    element("div", {}, [element("div", { class: "tf-running-names" }, [name, progress]), stop]),
    queue,
  ]);
  root.replaceChildren(section);

  async function stopRun() {
    stop.disabled = true;
    try {
      await post(`fork/runs/${id}/stop`, {});
      pollNow();
    } catch (error) {
      toast(messageOf(error));
    }
  }

  onChange(() => {
    const active = state.runs.filter((run) => isActive(run) && isShown(state, run)).reverse();
    const run = active.find(({ state }) => state !== "queued") ?? active[0];
    section.hidden = !run;
    if (!run) return;
    if (run.run_id !== id) {
      id = run.run_id;
      stop.disabled = false;
    }
    const others = state.runs.filter((other) => other.state === "queued" && other.run_id !== id).length;
    setText(name, nameOf(run));
    stop.setAttribute("aria-label", `Stop run ${nameOf(run)}`);
    setText(progress, progressText(run));
    const waiting = others ? `${plural(others, "other run")} in line. ` : "";
    setText(queue, `${waiting}Start puts the next run in line behind it.`);
  });
}

/** @param {RunLine} run */
function progressText(run) {
  if (run.state === "queued") return queueText(run);
  const last = lastPoint(run.run_id);
  const step = stepsMade(run, last);
  if (!step || !run.total_steps) return run.phase || "starting";
  return `${step}/${run.total_steps}${timeLeft(run, last)}`;
}
