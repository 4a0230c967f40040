// The table of runs: state, progress and what one can do with each.

import {
  begin,
  findRuns,
  isActive,
  lastStep,
  loadOlder,
  onChange,
  pollNow,
  post,
  runById,
  show,
  state,
} from "./live.js";
import { calibration } from "./calibration.js";
import { deletedRuns } from "./deleted.js";
import { bytes, element, toast } from "./dom.js";
import { Downloads } from "./downloads.js";
import { noticeList, plural } from "./notices.js";
import { got } from "./requests.js";
import { lookOf } from "./run_look.js";
import { timeLeft } from "./running.js";

const HEADS = ["show", "run", "state", "updates", "loss", "best eval", "data", "method", "lr", "batch", "memory", ""];
const NUMBERS = new Set(["loss", "best eval", "lr", "batch", "memory"]);

function number(value, digits = 4) {
  return value === null || value === undefined ? "–" : Number(value).toPrecision(digits);
}

function rate(value) {
  if (value === null || value === undefined) return "–";
  return value >= 0.001 ? String(+value.toPrecision(3)) : value.toExponential(1).replace(".0e", "e");
}

function methodText(run, titles) {
  const method = run.settings.method,
    title = titles[method.name] ?? method.name;
  return method.r ? `${title} r${method.r}` : title;
}

/** Settings that have no column of their own: they are named on each run where not all runs have them alike. */
const BESIDES = {
  schedule: (settings) => settings.schedule?.name && `${settings.schedule.name} schedule`,
  seed: (settings) => settings.seed !== undefined && `seed ${settings.seed}`,
  optimizer: (settings) => settings.optimizer?.name,
  precision: (settings) => settings.precision,
  dropout: (settings) => settings.method.dropout !== undefined && `dropout ${settings.method.dropout}`,
};

function differing(runs) {
  return Object.values(BESIDES).filter((of) => new Set(runs.map((run) => of(run.settings)).filter(Boolean)).size > 1);
}

function button(text, label, onclick, extra = "") {
  return element("button", { type: "button", class: "tf-button " + extra, "aria-label": label, onclick }, text);
}

async function act(path, body, done) {
  try {
    const result = await post(path, body);
    pollNow();
    done?.(result);
  } catch (error) {
    toast(String(error.message));
  }
}

/** One row: built once, then only its changing texts are set, so that focus and typing survive. */
class Row {
  constructor(id, config, trigger) {
    this.id = id;
    this.config = config;
    this.trigger = trigger;
    this.check = element("input", { type: "checkbox", onchange: () => show(id, this.check.checked) });
    this.dot = element("span", { class: "tf-dot tf-run-dot" });
    this.name = element("span", { class: "tf-name" });
    this.note = element("span", { class: "tf-note" });
    this.chip = element("span", { class: "tf-chip" });
    this.phase = element("span", { class: "tf-phase" });
    this.bar = element("span");
    this.meter = element(
      "span",
      { class: "tf-bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 },
      this.bar,
    );
    this.count = element("span", { class: "tf-count" });
    this.cells = {};
    for (const head of NUMBERS) this.cells[head] = element("td", { class: "tf-num", role: "cell", "data-head": head });
    for (const head of ["data", "method"]) this.cells[head] = element("td", { role: "cell", "data-head": head });
    this.besides = element("span", { class: "tf-note" });
    this.method = element("span");
    this.data = element("span");
    this.task = element("span", { class: "tf-note" });
    this.cells.method.append(element("div", { class: "tf-words" }, [this.method, this.besides]));
    this.cells.data.append(element("div", { class: "tf-words" }, [this.data, this.task]));
    this.measured = element("span");
    this.expected = element("span");
    this.error = element("span");
    this.cells.memory.append(
      element("div", { class: "tf-bytes" }, [
        this.measured,
        element("span", { class: "tf-note" }, [this.expected, " ", this.error]),
      ]),
    );
    this.stop = button(
      "Stop",
      "",
      () => {
        this.stop.disabled = true;
        act(`fork/runs/${id}/stop`, {}, () => {});
      },
      "tf-stop",
    );
    this.menu = this.buildMenu();
    this.told = element("button", {
      type: "button",
      class: "tf-told-open",
      "aria-expanded": "false",
      "aria-controls": `told-${id}`,
      hidden: true,
      onclick: () => this.openTold(this.toldRow.hidden),
    });
    this.toldBody = element("td", { role: "cell", colspan: HEADS.length });
    this.toldRow = element("tr", { role: "row", class: "tf-told-row", id: `told-${id}`, hidden: true }, this.toldBody);
    this.nameCell = element(
      "td",
      { role: "cell", class: "tf-name-cell" },
      element("div", { class: "tf-names" }, [
        this.name,
        element("span", { class: "tf-note" }, id),
        this.note,
        this.told,
      ]),
    );
    this.node = element("tr", { "data-run": id, role: "row" }, [
      element("td", { role: "cell" }, element("label", { class: "tf-check" }, [this.check, this.dot])),
      this.nameCell,
      element(
        "td",
        { role: "cell", class: "tf-state-cell" },
        element("div", { class: "tf-state" }, [this.chip, this.phase]),
      ),
      element(
        "td",
        { role: "cell", class: "tf-progress-cell" },
        element("div", { class: "tf-progress" }, [this.meter, this.count]),
      ),
      this.cells.loss,
      this.cells["best eval"],
      this.cells.data,
      this.cells.method,
      this.cells.lr,
      this.cells.batch,
      this.cells.memory,
      element("td", { role: "cell", class: "tf-actions" }, [this.stop, this.menu]),
    ]);
  }

  buildMenu() {
    const id = this.id;
    const close = () => {
      this.details.open = false;
      this.summary.focus();
    };
    this.summary = element("summary", {}, "⋯");
    const link = (text, path) =>
      element("a", { class: "tf-button", href: `fork/runs/${id}/${path}`, download: "", onclick: () => close() }, text);
    this.downloads = new Downloads(id, close);
    this.bestNext = button("Train on from its best", null, () => {
      close();
      this.reuse({ model: `run:${id}/best`, revision: null });
    });
    this.next = button("Train on from its result", null, () => {
      close();
      this.reuse({ model: `run:${id}`, revision: null });
    });
    this.download = element("div", { class: "tf-downloads" }, [...this.downloads.nodes, this.bestNext, this.next]);
    this.goOn = button("Go on", null, () => {
      close();
      act(`fork/runs/${id}/go_on`, {});
    });
    this.remove = button("Delete", "", () => {
      close();
      this.erase();
    });
    this.details = element("details", { class: "tf-menu" }, [
      this.summary,
      element("div", {}, [
        button("Use these settings again", null, () => {
          close();
          this.reuse();
        }),
        button("Rename", null, () => {
          close();
          this.edit("name");
        }),
        button("Note", null, () => {
          close();
          this.edit("note");
        }),
        button("Copy as command", null, () => {
          close();
          this.copyCommand();
        }),
        link("Download settings.json", "settings.json"),
        this.goOn,
        this.download,
        this.remove,
      ]),
    ]);
    this.details.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.details.open) close();
    });
    this.details.addEventListener("toggle", () => {
      this.placeMenu();
      if (this.details.open) this.lookWhatIsKept();
    });
    this.offer({ go_on: null, forms: {} });
    return this.details;
  }

  /** Offers what this run has left: asked when the menu opens, for a checkpoint or a result may be gone by now. */
  async lookWhatIsKept() {
    const run = runById(this.id);
    if (!run || isActive(run)) return;
    const found = await this.downloads.look();
    if (!found || isActive(runById(this.id) ?? run)) return;
    this.offer(found);
    this.placeMenu();
  }

  offer({ go_on: step, forms }) {
    const left = (form) => (forms[form]?.state ?? "none") !== "none";
    this.goOn.hidden = step === null;
    set(this.goOn, step ? `Go on from update ${step}` : "Begin anew (it left no checkpoint)");
    this.next.hidden = !left("trained");
    this.bestNext.hidden = !left("best");
    this.download.hidden = !left("trained");
  }

  placeMenu() {
    // the table scrolls sideways, so an open menu is placed on the page, not inside it
    if (!this.details.open) return;
    for (const other of document.querySelectorAll(".tf-menu[open]")) if (other !== this.details) other.open = false;
    const box = this.summary.getBoundingClientRect(),
      list = this.details.lastElementChild;
    const below = box.bottom + list.offsetHeight + 8 < innerHeight;
    list.style.top = `${below ? box.bottom + 4 : Math.max(4, box.top - list.offsetHeight - 4)}px`;
    list.style.left = `${Math.max(8, Math.min(box.right - list.offsetWidth, innerWidth - list.offsetWidth - 8))}px`;
  }

  /** What the plan told before Start, as it was stored with the run. */
  openTold(open) {
    this.toldRow.hidden = !open;
    this.told.setAttribute("aria-expanded", String(open));
  }

  tellNotices(notices, name) {
    const text = notices.length ? plural(notices.length, "notice") : "";
    this.told.hidden = !text;
    set(this.told, text);
    this.told.setAttribute("aria-label", `${text}: what was told before Start of ${name}`);
    const key = JSON.stringify([notices, name]);
    if (key === this.toldKey) return;
    this.toldKey = key;
    if (!text) this.openTold(false);
    this.toldBody.replaceChildren(element("h3", {}, "What was told before Start"), noticeList(notices));
  }

  followScroll() {
    // an open menu stays beside its button, and closes when that is out of sight
    if (!this.details.open) return;
    const box = this.summary.getBoundingClientRect();
    if (box.bottom < 0 || box.top > innerHeight) this.details.open = false;
    else this.placeMenu();
  }

  async copyCommand() {
    try {
      const answer = await got(`fork/runs/${this.id}/command`);
      if (!answer) throw new Error("The command of this run could not be read.");
      await navigator.clipboard.writeText(answer.command);
      toast("The command line that trains this run again is in the clipboard.");
    } catch (error) {
      toast(String(error.message));
    }
  }

  async reuse(changes = {}) {
    try {
      const settings = await got(`fork/runs/${this.id}/settings`);
      if (!settings) throw new Error("The settings of this run could not be read.");
      this.trigger("reuse", { settings: { ...settings, ...changes } });
      toast(
        changes.model ? "The form now starts from this run's result." : "The form now holds the settings of this run.",
      );
    } catch (error) {
      toast(String(error.message));
    }
  }

  erase() {
    act(`fork/runs/${this.id}/delete`, {}, () => {
      toast(`Deleted “${this.name.textContent}”.`, "Undo", () =>
        act(`fork/runs/${this.id}/undelete`, {}, () => findRuns(this.id)),
      );
    });
  }

  edit(what) {
    const path = what === "name" ? "rename" : "note";
    const run = runById(this.id);
    const input = element("input", {
      type: "text",
      class: "tf-edit",
      "aria-label": what === "name" ? "New name" : "Note",
      value: run?.[what] ?? "",
    });
    let open = true;
    const end = (keep) => {
      if (!open) return;
      open = false;
      input.remove();
      if (keep && input.value !== (run?.[what] ?? "")) act(`fork/runs/${this.id}/${path}`, { [what]: input.value });
      this.summary.focus();
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

  update(run, besides) {
    const name = run.name || run.run_id,
      active = isActive(run);
    set(this.name, name);
    set(this.note, [lineage(run), run.note].filter(Boolean).join(" · "));
    this.tellNotices(run.plan.notices ?? [], name);
    this.check.setAttribute("aria-label", `Show ${name}`);
    this.check.checked = Boolean(state.shown?.has(run.run_id));
    const { color, line } = lookOf(run, this.config.palette);
    this.dot.style.setProperty("--run", color);
    this.dot.dataset.line = line;
    this.chip.dataset.state = run.state;
    set(this.chip, run.state === "finished" ? "done" : run.state);
    set(this.phase, phaseText(run));
    this.progress(run, name);
    const series = state.series.get(run.run_id);
    set(this.cells.loss, number(series?.step.at(-1)?.loss ?? run.loss));
    const evals = (series?.eval ?? []).map((point) => point.loss).filter((loss) => loss !== null);
    set(this.cells["best eval"], number(evals.length ? Math.min(...evals) : run.best_eval));
    set(this.method, methodText(run, this.config.methods));
    set(
      this.besides,
      besides
        .map((of) => of(run.settings))
        .filter(Boolean)
        .join(", "),
    );
    set(this.data, run.data_name ?? run.settings.data.source);
    set(this.task, this.config.tasks[run.settings.task] ?? run.settings.task);
    this.cells.data.title = run.settings.data.source;
    set(this.cells.lr, trains(run) ? rate(run.plan.derived.learning_rate) : "–");
    set(this.cells.batch, trains(run) ? String(run.plan.derived.effective_batch ?? "–") : "–");
    this.tellMemory(run, series?.step.at(-1)?.peak_bytes, active);
    this.stop.hidden = !active;
    if (!active) this.stop.disabled = false;
    this.stop.setAttribute("aria-label", `Stop ${name}`);
    this.summary.setAttribute("aria-label", `Actions for ${name}`);
    if (active) this.offer({ go_on: null, forms: {} });
  }

  /** What was measured, what was estimated, and how far apart they are. */
  tellMemory(run, latest, active) {
    const measured = run.peak_bytes ?? latest,
      expected = run.estimate?.total_bytes;
    const off = measured && expected ? `${signed(100 * (expected / measured - 1))} %` : "";
    set(this.measured, measured ? bytes(measured) : active ? "" : "not measured");
    set(this.expected, expected ? `est. ${bytes(expected)}${off && ","}` : "");
    set(this.error, off);
    this.cells.memory.title = run.estimate?.kind ? `the estimate was ${run.estimate.kind}` : "";
  }

  progress(run, name) {
    const last = lastStep(run.run_id),
      step = Math.max(last?.step ?? 0, run.step ?? 0);
    const total = trains(run) ? run.total_steps : 0;
    const share = total ? Math.min(100, (100 * step) / total) : 0;
    this.bar.style.width = `${share}%`;
    this.meter.setAttribute("aria-valuenow", Math.round(share));
    this.meter.setAttribute("aria-label", `Progress of ${name}`);
    set(this.count, total ? `${step}/${total}${timeLeft(run)}` : "");
  }
}

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Which run's result this one began with. */
function lineage(run) {
  if (!run.settings.model.startsWith("run:")) return "";
  const [id] = run.settings.model.slice(4).split("/"); // run:ID, or run:ID/best
  return `from ${runById(id)?.name || id}`;
}

function phaseText(run) {
  if (run.state === "queued") return run.place ? `place ${run.place} in the queue` : "loading libraries";
  if (run.state === "failed" || run.state === "interrupted") return run.message || "";
  if (run.state !== "running") return "";
  return run.phase || (lastStep(run.run_id) || run.step ? "" : "starting");
}

export function mountRuns(root, config, trigger) {
  // the roles are said, because on a narrow page the table is laid out as cards and would lose them
  const body = element("tbody", { role: "rowgroup" });
  const table = element("table", { class: "tf-table tf-runs", role: "table" }, [
    element(
      "thead",
      { role: "rowgroup" },
      element(
        "tr",
        { role: "row" },
        HEADS.map((head) =>
          element(
            "th",
            { scope: "col", role: "columnheader", class: NUMBERS.has(head) ? "tf-num" : "" },
            head || element("span", { class: "tf-hidden" }, "actions"),
          ),
        ),
      ),
    ),
    body,
  ]);
  const region = element("div", { class: "tf-scroll", role: "region", "aria-label": "Runs", tabindex: 0 }, table);
  const trouble = element("p", { class: "tf-problem", role: "alert", hidden: true });
  const search = element("input", { type: "search", placeholder: "name or id" });
  const find = element("label", { class: "tf-control tf-find" }, [element("span", {}, "find a run"), search]);
  const older = button(
    "Older runs",
    null,
    async () => {
      older.disabled = true;
      try {
        await loadOlder();
      } catch (error) {
        toast(String(error.message));
      }
      older.disabled = false;
    },
    "tf-older",
  );
  const none = element("p", { class: "tf-small", hidden: true }, "No run has this in its name or as its id.");
  const card = element("div", { class: "tf-card" }, [find, region, none, older, calibration()]);
  const wanted = () => search.value.trim().toLowerCase();
  let asked = null;
  search.addEventListener("input", () => {
    // those at hand at once, those further down when the server has answered
    clearTimeout(asked);
    draw();
    if (wanted())
      asked = setTimeout(() => findRuns(search.value.trim()).catch((error) => toast(String(error.message))), 250);
  });
  root.replaceChildren(trouble, card, deletedRuns());
  const rows = new Map();
  /** The list as far as it was asked for, and what is looked at from further down; or what is searched. */
  function isListed(run) {
    const text = wanted();
    if (text) return run.run_id === text || (run.name || "").toLowerCase().includes(text);
    return run.number >= (state.older ?? 0) || state.shown?.has(run.run_id) || isActive(run);
  }
  function draw() {
    trouble.hidden = !state.trouble;
    set(trouble, state.trouble);
    card.hidden = state.runs.length === 0;
    older.hidden = state.older === null || Boolean(wanted());
    find.hidden = state.runs.length < 10 && !wanted();
    const listed = state.runs.filter(isListed);
    none.hidden = listed.length > 0 || !wanted();
    const there = new Set(listed.map((run) => run.run_id));
    for (const [id, row] of rows)
      if (!there.has(id)) {
        row.node.remove();
        row.toldRow.remove();
        rows.delete(id);
      }
    const besides = differing(listed);
    listed.forEach((run, index) => {
      if (!rows.has(run.run_id)) rows.set(run.run_id, new Row(run.run_id, config, trigger));
      const row = rows.get(run.run_id);
      if (body.children[2 * index] !== row.node) {
        const before = body.children[2 * index] ?? null;
        body.insertBefore(row.node, before);
        body.insertBefore(row.toldRow, before);
      }
      row.update(run, besides);
    });
  }
  onChange(draw);
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll(".tf-menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener(
    "scroll",
    () => {
      for (const row of rows.values()) row.followScroll();
    },
    { capture: true, passive: true },
  );
  begin();
}

/** Prompting and retrieval make no updates. */
function trains(run) {
  return run.plan.derived.trainable_parameters !== 0;
}

function signed(percent) {
  const size = Math.abs(percent).toFixed(1);
  return size === "0.0" ? size : `${percent < 0 ? "−" : "+"}${size}`;
}
