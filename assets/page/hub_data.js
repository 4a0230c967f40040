// Under the data field: "Look up data" shows a data set of the hub before it is fetched: subsets, splits, first rows.

import { bytes, element } from "./dom.js";
import { HubCard } from "./hub_card.js";

export const DOWNLOADED = "tf-data-downloaded";

export function mountHubData(root, props, trigger) {
  const told = (name, detail) => {
    if (name === "downloaded") document.dispatchEvent(new Event(DOWNLOADED)); // "Your data" looks again
    trigger(name, detail);
  };
  new HubData(root, props, told, {
    what: "data set",
    look: "Look up data",
    routes: "fork/data",
    key: "source",
    field: "f-data-source",
    id: "tf-data-token",
  });
}

class HubData extends HubCard {
  asked() {
    const { subset, revision, split } = this.settings().data ?? {};
    return {
      source: this.field("data-source"),
      subset: subset || null,
      revision: revision || null,
      split: split || null,
    };
  }

  facts(card) {
    const chosen = card.subsets.find((one) => one.name === card.subset);
    const splits = (chosen?.splits ?? []).map(
      (one) => `${one.name} ${bytes(one.bytes)}${one.files > 1 ? ` in ${one.files} files` : ""}`,
    );
    return [
      [card.here ? "Size on disk" : "To download", card.bytes ? bytes(card.bytes) : null],
      ["Licence", card.licence ?? (card.source === "hub" ? "not stated" : null)],
      ["Splits", splits.join(", ") || null],
    ];
  }

  chips(card) {
    return [card.subsets.length > 1 && card.subset ? `subset ${card.subset}` : null];
  }

  more(card) {
    const subsets =
      card.subsets.length > 1
        ? [
            element(
              "div",
              { class: "tf-buttons", role: "group", "aria-label": "Subsets" },
              card.subsets.map((one) =>
                element(
                  "button",
                  {
                    type: "button",
                    class: "tf-button",
                    "aria-pressed": String(one.name === card.subset),
                    onclick: () => this.choose(one.name),
                  },
                  one.name,
                ),
              ),
            ),
          ]
        : [];
    const names = [...new Set(card.rows.flatMap(Object.keys))];
    const rows = card.rows.length
      ? [
          element(
            "div",
            { class: "tf-scroll", tabindex: 0, role: "group", "aria-label": "First rows" },
            element("table", { class: "tf-table" }, [
              element(
                "thead",
                {},
                element(
                  "tr",
                  {},
                  names.map((name) => element("th", { scope: "col" }, name)),
                ),
              ),
              element(
                "tbody",
                {},
                card.rows.map((row) =>
                  element(
                    "tr",
                    {},
                    names.map((name) => element("td", {}, row[name] ?? "")),
                  ),
                ),
              ),
            ]),
          ),
        ]
      : [];
    return [...subsets, ...rows];
  }

  /** The subset goes into the form, and its card is looked up: that too was a press. */
  async choose(subset) {
    this.trigger("set", { values: { "data.subset": subset } });
    const now = () => this.settings().data?.subset;
    for (let tries = 0; now() !== subset && tries < 100; tries += 1)
      await new Promise((resolve) => setTimeout(resolve, 100));
    if (now() === subset) await this.lookUp();
  }
}
