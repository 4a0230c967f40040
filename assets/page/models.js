// Under the model field: "Look up" asks what a model is before anything is fetched; the card downloads it.

import { bytes, element } from "./dom.js";
import { HubCard } from "./hub_card.js";

const TUNED = { chat: "chat-tuned", base: "base", unclear: "has a chat template", encoder: "encoder" };
const TASKS = { causal_lm: "write text", sequence_classification: "choose a class" };

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

class Models extends HubCard {
  asked() {
    return { model: this.field("model"), revision: this.settings().revision || null };
  }

  facts(card) {
    return [
      ["Architecture", card.architecture],
      ["Parameters", card.parameters === null ? null : count(card.parameters)],
      [card.here ? "Size on disk" : "To download", bytes(card.bytes)],
      ["Licence", card.licence ?? (card.source === "hub" && !card.here ? "not stated" : null)],
      ["Context", card.max_positions === null ? null : `${card.max_positions.toLocaleString("en")} tokens`],
      ["Made for", card.tasks.map((task) => TASKS[task]).join(", ") || null],
    ];
  }

  chips(card) {
    return [TUNED[card.tuned]];
  }

  more(card) {
    return [
      element(
        "ul",
        { class: "tf-fits" },
        card.fits.map((one) =>
          element("li", {}, [
            element(
              "span",
              { class: "tf-chip", "data-verdict": one.fits ? "fits" : "over" },
              one.fits ? "fits" : "does not fit",
            ),
            ` ${one.words}: up to ${bytes(one.bytes)} of ${bytes(one.device_bytes)}`,
          ]),
        ),
      ),
    ];
  }
}

function count(number) {
  if (number >= 1e9) return `${(number / 1e9).toPrecision(3)} billion`;
  if (number >= 1e6) return `${(number / 1e6).toPrecision(3)} million`;
  return number.toLocaleString("en");
}
