// @ts-check
// Under the model field: "Look up" asks what a model is before anything is fetched; its description downloads it.

import { element } from "./dom.js";
import { bytes, count, countInWords } from "./format.js";
import { HubLookUp } from "./hub_look_up.js";

/** @typedef {import("./shapes").ModelDescription} ModelDescription */
/** @typedef {import("./hub_look_up.js").Trigger} Trigger */

/** @type {Record<string, string>} */
const TUNED = { chat: "chat-tuned", base: "base", unclear: "has a chat template", encoder: "encoder" };
/** @type {Record<string, string>} */
const TASKS = { causal_lm: "write text", sequence_classification: "choose a class" };

/**
 * @param {HTMLElement} root
 * @param {{ value?: { settings: any } }} props
 * @param {Trigger} trigger
 */
export function mountModels(root, props, trigger) {
  new Models(root, props, trigger, {
    what: "model",
    look: "Look up",
    routes: "fork/models",
    key: "model",
    field: "f-model",
    id: "tf-token",
  });
}

/** @extends {HubLookUp<ModelDescription>} */
class Models extends HubLookUp {
  question() {
    return { model: this.field("model"), revision: this.settings().revision || null };
  }

  /**
   * @param {ModelDescription} model
   * @returns {[string, string | null][]}
   */
  facts(model) {
    const { here, licence, parameters, max_positions: positions } = model;
    return [
      ["Architecture", model.architecture],
      ["Parameters", parameters === null ? null : countInWords(parameters)],
      [here ? "Size on disk" : "To download", bytes(model.bytes)],
      ["Licence", licence ?? (model.source === "hub" && !here ? "not stated" : null)],
      ["Context", positions === null ? null : `${count(positions)} tokens`],
      ["Made for", model.tasks.map((task) => TASKS[task]).join(", ") || null],
    ];
  }

  /** @param {ModelDescription} model */
  chips(model) {
    return [TUNED[model.tuned]];
  }

  /** @param {ModelDescription} model */
  more(model) {
    const lines = model.fits.map(({ fits, words, bytes: size, device_bytes: limit }) =>
      element("li", {}, [
        element("span", { class: "tf-chip", "data-verdict": fits ? "fits" : "over" }, fits ? "fits" : "does not fit"),
        ` ${words}: up to ${bytes(size)} of ${bytes(limit)}`,
      ]),
    );
    return [element("ul", { class: "tf-fits" }, lines)];
  }
}
