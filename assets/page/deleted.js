// Deleted runs: brought back, or deleted for good; and what the home folder takes on the disk.

import { findRuns, get, onChange, pollNow, post, state } from "./live.js";
import { bytes, element, toast } from "./dom.js";
import { plural } from "./notices.js";

export function deletedRuns() {
  const list = element("ul", { class: "tf-deleted" });
  const used = element("p", { class: "tf-small" });
  const node = element("details", { class: "tf-mem-details tf-deleted-runs" }, [
    element("summary", {}, "Deleted runs, and what is used on the disk"),
    used,
    list,
  ]);
  const card = element("div", { class: "tf-card tf-deleted-card", hidden: true }, node);

  async function look() {
    if (!node.open) return;
    try {
      const [disk, { runs, older }] = await Promise.all([get("fork/disk"), get("fork/runs?deleted=true")]);
      used.textContent = told(disk);
      list.replaceChildren(...runs.map(line));
      if (older !== null)
        list.append(element("li", { class: "tf-small" }, `and ${disk.deleted.count - runs.length} more`));
    } catch (error) {
      toast(String(error.message));
    }
  }

  function line(run) {
    const name = run.name || run.run_id;
    const press = (text, label, onclick) =>
      element("button", { type: "button", class: "tf-button", "aria-label": `${label} ${name}`, onclick }, text);
    const back = press("Bring back", "Bring back", () => change(run, "undelete"));
    const gone = press("Delete for good", "Delete for good:", () => {
      // asked once more: this cannot be undone
      const yes = press("Yes, delete for good", "Yes, delete for good:", () => {
        yes.disabled = true;
        change(run, "purge");
      });
      const no = press("Keep", "Keep", () => buttons.replaceChildren(back, gone));
      buttons.replaceChildren(element("span", {}, "Its points and files cannot be brought back."), yes, no);
      no.focus();
    });
    const buttons = element("span", { class: "tf-deleted-buttons" }, [back, gone]);
    return element("li", { "data-deleted": run.run_id }, [
      element("span", {}, [
        element("span", { class: "tf-name" }, name),
        " ",
        element("span", { class: "tf-note" }, run.run_id),
      ]),
      buttons,
    ]);
  }

  async function change(run, action) {
    try {
      const answer = await post(`fork/runs/${run.run_id}/${action}`);
      if (action === "purge") toast(`Deleted “${run.name}” for good: ${bytes(answer.bytes)} freed.`);
      else await findRuns(run.run_id);
      pollNow();
    } catch (error) {
      toast(String(error.message));
    }
    await look();
  }

  node.addEventListener("toggle", look);
  let listed = 0;
  onChange(() => {
    // a deletion changes the list above
    card.hidden = !(state.version > 1); // the first run there has ever been makes it 2
    if (node.open && state.runs.length !== listed) look();
    listed = state.runs.length;
  });
  return card;
}

function told({ runs, deleted, uploads, store, free }) {
  const parts = [
    `${plural(runs.count, "run")} ${bytes(runs.bytes)}`,
    `${plural(deleted.count, "deleted run")} ${bytes(deleted.bytes)}`,
    `${plural(uploads.count, "uploaded file")} ${bytes(uploads.bytes)}`,
  ];
  if (store !== null) parts.push(`curves and settings ${bytes(store)}`, `${bytes(free)} free`); // of the whole home: for its holder
  return `On the disk: ${parts.join(" · ")}.`;
}
