// @ts-check
// Deleted runs: restored, or deleted for good; and what the home folder takes on the disk.

import { button, element, messageOf, toast } from "./dom.js";
import { bytes, plural } from "./format.js";
import { findRuns, onChange, pollNow, state } from "./polling.js";
import { get, post } from "./requests.js";
import { nameOf } from "./run_text.js";

/** @typedef {import("./shapes").DiskUse} DiskUse */
/** @typedef {import("./shapes").RunLine} RunLine */

export function deletedRuns() {
  const list = element("ul", { class: "tf-deleted" });
  const used = element("p", { class: "tf-small" });
  const details = element("details", { class: "tf-mem-details tf-deleted-runs" }, [
    element("summary", {}, "Deleted runs, and what is used on the disk"),
    used,
    list,
  ]);
  const section = element("div", { class: "tf-card tf-deleted-card", hidden: true }, details);

  async function refresh() {
    if (!details.open) return;
    try {
      const [disk, { runs, older }] = await Promise.all([get("fork/disk"), get("fork/runs?deleted=true")]);
      used.textContent = diskText(disk);
      list.replaceChildren(...runs.map(line));
      const more = disk.deleted.count - runs.length;
      if (older !== null) list.append(element("li", { class: "tf-small" }, `and ${more} more`));
    } catch (error) {
      toast(messageOf(error));
    }
  }

  /** @param {RunLine} run */
  function line(run) {
    const name = nameOf(run);
    const entry = (/** @type {string} */ text, /** @type {() => void} */ onPress, label = text) =>
      button(text, onPress, { "aria-label": `${label} ${name}` });
    const restore = entry("Bring back", () => change(run, "undelete"));
    const purge = entry("Delete for good", askAgain, "Delete for good:");
    const buttons = element("span", { class: "tf-deleted-buttons" }, [restore, purge]);

    function askAgain() {
      // this cannot be undone
      const sure = () => {
        yes.disabled = true;
        change(run, "purge");
      };
      const yes = entry("Yes, delete for good", sure, "Yes, delete for good:");
      const no = entry("Keep", () => buttons.replaceChildren(restore, purge));
      buttons.replaceChildren(element("span", {}, "Its points and files cannot be brought back."), yes, no);
      no.focus();
    }

    return element("li", { "data-deleted": run.run_id }, [
      element("span", {}, [
        element("span", { class: "tf-name" }, name),
        " ",
        element("span", { class: "tf-note" }, run.run_id),
      ]),
      buttons,
    ]);
  }

  /**
   * @param {RunLine} run
   * @param {"undelete" | "purge"} action
   */
  async function change(run, action) {
    try {
      const answer = await post(`fork/runs/${run.run_id}/${action}`);
      if (action === "purge") toast(`Deleted “${run.name}” for good: ${bytes(answer.bytes)} freed.`);
      else await findRuns(run.run_id);
      pollNow();
    } catch (error) {
      toast(messageOf(error));
    }
    await refresh();
  }

  details.addEventListener("toggle", refresh);
  let listed = 0;
  onChange(() => {
    // a deletion changes the list above
    section.hidden = !(Number(state.listVersion) > 1); // the first run there has ever been makes it 2
    if (details.open && state.runs.length !== listed) refresh();
    listed = state.runs.length;
  });
  return section;
}

/**
 * What the home folder takes; of the whole home, store and free space are known to its holder only.
 * @param {DiskUse} disk
 */
export function diskText({ runs, deleted, uploads, store, free }) {
  const parts = [
    `${plural(runs.count, "run")} ${bytes(runs.bytes)}`,
    `${plural(deleted.count, "deleted run")} ${bytes(deleted.bytes)}`,
    `${plural(uploads.count, "uploaded file")} ${bytes(uploads.bytes)}`,
  ];
  if (store !== null) parts.push(`curves and settings ${bytes(store)}`, `${bytes(free)} free`);
  return `On the disk: ${parts.join(" · ")}.`;
}
