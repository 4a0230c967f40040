// What trains now, over the button Start: how far it is, and Stop. It stays in sight while the page is scrolled.

import { isActive, lastStep, onChange, pollNow, post, state } from "./live.js";
import { duration, element, toast } from "./dom.js";
import { plural } from "./notices.js";

export function mountRunning(root) {
  const name = element("strong"),
    count = element("span", { class: "tf-count" }),
    queue = element("p", { class: "tf-small" });
  let id = null;
  const stop = element(
    "button",
    {
      type: "button",
      class: "tf-button tf-stop",
      onclick: async () => {
        stop.disabled = true;
        try {
          await post(`fork/runs/${id}/stop`, {});
          pollNow();
        } catch (error) {
          toast(error.message);
        }
      },
    },
    "Stop",
  );
  const card = element("section", { class: "tf-running", "aria-label": "Running now", hidden: true }, [
    element("div", {}, [element("div", { class: "tf-running-names" }, [name, count]), stop]),
    queue,
  ]);
  root.replaceChildren(card);
  onChange(() => {
    const active = state.runs.filter((run) => isActive(run) && state.shown?.has(run.run_id)).reverse();
    const run = active.find((one) => one.state !== "queued") ?? active[0];
    card.hidden = !run;
    if (!run) return;
    if (run.run_id !== id) {
      id = run.run_id;
      stop.disabled = false;
    }
    const title = run.name || id,
      waiting = state.runs.filter((one) => one.state === "queued" && one.run_id !== id).length;
    set(name, title);
    stop.setAttribute("aria-label", `Stop run ${title}`);
    set(count, progress(run));
    set(
      queue,
      `${waiting ? `${plural(waiting, "other run")} in line. ` : ""}Start puts the next run in line behind it.`,
    );
  });
}

function progress(run) {
  const last = lastStep(run.run_id),
    step = Math.max(last?.step ?? 0, run.step ?? 0),
    total = run.total_steps;
  if (run.state === "queued") return run.place ? `place ${run.place} in the queue` : "loading libraries";
  if (!step || !total) return run.phase || "starting";
  return `${step}/${total}${timeLeft(run)}`;
}

/** " · 9 s left", from the updates so far; nothing before the first. */
export function timeLeft(run) {
  const last = lastStep(run.run_id),
    step = Math.max(last?.step ?? 0, run.step ?? 0);
  if (run.state !== "running" || !last?.seconds || step >= run.total_steps) return "";
  return ` · ${duration((last.seconds / last.step) * (run.total_steps - step))} left`;
}

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
