// @ts-check
// The table of runs: which are listed, searched and in which order. A run's line is in run_row.js.

import { calibration } from "./calibration.js";
import { deletedRuns } from "./deleted.js";
import { button, element, messageOf, setText, toast } from "./dom.js";
import { findRuns, loadOlder, onChange, state } from "./polling.js";
import { HEADS, NUMBER_HEADS, RunRow } from "./run_row.js";
import { isActive, isShown } from "./run_state.js";
import { differingSettings } from "./run_text.js";

/** @typedef {import("./shapes").ChartConfig} ChartConfig */
/** @typedef {import("./shapes").RunLine} RunLine */
/** @typedef {import("./run_actions.js").Trigger} Trigger */

const SEARCH_DELAY = 250; // milliseconds after a key before the server is asked
const SEARCHED_FROM = 10; // runs in the list from which there is a search field

/**
 * @param {HTMLElement} root
 * @param {ChartConfig} config
 * @param {Trigger} trigger
 */
export function mountRuns(root, config, trigger) {
  // the roles are said, because on a narrow page the table is laid out as cards and would lose them
  const body = element("tbody", { role: "rowgroup" });
  const heads = HEADS.map((head) =>
    element(
      "th",
      { scope: "col", role: "columnheader", class: NUMBER_HEADS.has(head) ? "tf-num" : "" },
      head || element("span", { class: "tf-hidden" }, "actions"),
    ),
  );
  const table = element("table", { class: "tf-table tf-runs", role: "table" }, [
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, heads)),
    body,
  ]);
  const region = element("div", { class: "tf-scroll", role: "region", "aria-label": "Runs", tabindex: 0 }, table);
  const trouble = element("p", { class: "tf-problem", role: "alert", hidden: true });
  const search = element("input", { type: "search", placeholder: "name or id" });
  const searchField = element("label", { class: "tf-control tf-find" }, [element("span", {}, "find a run"), search]);
  const older = button("Older runs", showOlder, { class: "tf-older" });
  const none = element("p", { class: "tf-small", hidden: true }, "No run has this in its name or as its id.");
  const section = element("div", { class: "tf-card" }, [searchField, region, none, older, calibration()]);
  root.replaceChildren(trouble, section, deletedRuns());

  async function showOlder() {
    older.disabled = true;
    try {
      await loadOlder();
    } catch (error) {
      toast(messageOf(error));
    }
    older.disabled = false;
  }

  const searchText = () => search.value.trim().toLowerCase();
  /** @type {number | undefined} */
  let searchTimer;
  search.addEventListener("input", () => {
    // those at hand at once, those further down when the server has answered
    clearTimeout(searchTimer);
    draw();
    const ask = () => findRuns(search.value.trim()).catch((error) => toast(messageOf(error)));
    if (searchText()) searchTimer = setTimeout(ask, SEARCH_DELAY);
  });

  /**
   * Whether a run is in the list as far as it was asked for, or looked at from further down; or is searched.
   * @param {RunLine} run
   */
  function isListed(run) {
    const text = searchText();
    if (text) return run.run_id === text || (run.name || "").toLowerCase().includes(text);
    return run.number >= (state.older ?? 0) || isShown(state, run) || isActive(run);
  }

  /** @type {Map<string, RunRow>} */
  const rows = new Map();
  function draw() {
    trouble.hidden = !state.trouble;
    setText(trouble, state.trouble);
    section.hidden = state.runs.length === 0;
    older.hidden = state.older === null || Boolean(searchText());
    searchField.hidden = state.runs.length < SEARCHED_FROM && !searchText();
    const listed = state.runs.filter(isListed);
    none.hidden = listed.length > 0 || !searchText();
    const ids = new Set(listed.map((run) => run.run_id));
    for (const [id, row] of rows) {
      if (ids.has(id)) continue;
      row.remove();
      rows.delete(id);
    }
    const differing = differingSettings(listed);
    listed.forEach((run, index) => {
      const row = rows.get(run.run_id) ?? new RunRow(run.run_id, config, trigger);
      rows.set(run.run_id, row);
      const there = body.children[2 * index] ?? null; // each run has two lines: its own and its notices
      if (there !== row.node) row.insert(body, there);
      row.update(run, differing);
    });
  }
  onChange(draw);
}
