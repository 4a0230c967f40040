// @ts-check
// Under the data field: "Look up data" shows a data set of the hub before it is fetched: subsets, splits, first rows.

import { button, element, sleep } from "./dom.js";
import { bytes } from "./format.js";
import { HubLookUp } from "./hub_look_up.js";

/** @typedef {import("./shapes").DataDescription} DataDescription */
/** @typedef {import("./shapes").Split} Split */
/** @typedef {import("./hub_look_up.js").Trigger} Trigger */

/** The event of the document that says that another data set is on this machine now. */
export const DOWNLOADED = "tf-data-downloaded";

const WAIT = 100; // milliseconds between two looks at the form
const TRIES = 100;

/**
 * @param {HTMLElement} root
 * @param {{ value?: { settings: any } }} props
 * @param {Trigger} trigger
 */
export function mountHubData(root, props, trigger) {
  /** @type {Trigger} */
  const onEvent = (name, detail) => {
    if (name === "downloaded") document.dispatchEvent(new Event(DOWNLOADED)); // "Your data" looks again
    trigger(name, detail);
  };
  new HubData(root, props, onEvent, {
    what: "data set",
    look: "Look up data",
    routes: "fork/data",
    key: "source",
    field: "f-data-source",
    id: "tf-data-token",
  });
}

/** @param {Split} split */
function splitText({ name, bytes: size, files }) {
  return `${name} ${bytes(size)}${files > 1 ? ` in ${files} files` : ""}`;
}

/** @extends {HubLookUp<DataDescription>} */
class HubData extends HubLookUp {
  question() {
    const { subset, revision, split } = this.settings().data ?? {};
    return {
      source: this.field("data-source"),
      subset: subset || null,
      revision: revision || null,
      split: split || null,
    };
  }

  /**
   * @param {DataDescription} data
   * @returns {[string, string | null][]}
   */
  facts(data) {
    const splits = data.subsets.find(({ name }) => name === data.subset)?.splits ?? [];
    return [
      [data.here ? "Size on disk" : "To download", data.bytes ? bytes(data.bytes) : null],
      ["Licence", data.licence ?? (data.source === "hub" ? "not stated" : null)],
      ["Splits", splits.map(splitText).join(", ") || null],
    ];
  }

  /** @param {DataDescription} data */
  chips(data) {
    return [data.subsets.length > 1 && data.subset ? `subset ${data.subset}` : null];
  }

  /** @param {DataDescription} data */
  more(data) {
    return [
      ...(data.subsets.length > 1 ? [this.subsetButtons(data)] : []),
      ...(data.rows.length ? [rowTable(data.rows)] : []),
    ];
  }

  /** @param {DataDescription} data */
  subsetButtons(data) {
    const buttons = data.subsets.map(({ name }) =>
      button(name, () => this.choose(name), { "aria-pressed": String(name === data.subset) }),
    );
    return element("div", { class: "tf-buttons", role: "group", "aria-label": "Subsets" }, buttons);
  }

  /**
   * Puts the subset into the form, and looks it up: that too was a press.
   * @param {string} subset
   */
  async choose(subset) {
    this.trigger("set", { values: { "data.subset": subset } });
    const current = () => this.settings().data?.subset;
    for (let tries = 0; current() !== subset && tries < TRIES; tries += 1) await sleep(WAIT);
    if (current() === subset) await this.lookUp();
  }
}

/** @param {Record<string, string>[]} rows */
function rowTable(rows) {
  const names = [...new Set(rows.flatMap(Object.keys))];
  const heads = names.map((name) => element("th", { scope: "col" }, name));
  const lines = rows.map((row) =>
    element(
      "tr",
      {},
      names.map((name) => element("td", {}, row[name] ?? "")),
    ),
  );
  return element(
    "div",
    { class: "tf-scroll", tabindex: 0, role: "group", "aria-label": "First rows" },
    element("table", { class: "tf-table" }, [
      element("thead", {}, element("tr", {}, heads)),
      element("tbody", {}, lines),
    ]),
  );
}
