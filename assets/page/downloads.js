// What a run has left, in the forms it has: what is there is downloaded, what is not is made first, and one sees that.

import { post } from "./live.js";
import { element, toast } from "./dom.js";
import { got } from "./requests.js";

const FORMS = {
  trained: "Download zip",
  best: "Download the best weights",
  merged: "Download merged model",
  "best-merged": "Download the best, merged",
};
const LOOK_MILLISECONDS = 500;

/** The entries of a run's menu; `close` is called when a download begins. */
export class Downloads {
  constructor(id, close) {
    this.id = id;
    this.close = close;
    this.buttons = {};
    for (const [form, text] of Object.entries(FORMS))
      this.buttons[form] = element(
        "button",
        { type: "button", class: "tf-button", hidden: true, onclick: () => this.get(form) },
        text,
      );
    this.nodes = Object.values(this.buttons);
    this.wanted = new Set(); // forms that are being made for a download here
  }

  /** What the run has left; null where the server does not say. Asked when the menu opens, for a result may be gone by
   * now, and a merged model is offered only where there can be one. */
  async look() {
    const found = await got(`fork/runs/${this.id}/results`);
    if (found) this.tell(found.forms);
    return found;
  }

  tell(forms) {
    for (const [form, button] of Object.entries(this.buttons)) {
      const { state } = forms[form];
      button.hidden = state === "none";
      button.disabled = state === "making";
      button.setAttribute("aria-busy", String(state === "making"));
      button.textContent = state === "making" ? `${FORMS[form]}: being made…` : FORMS[form];
    }
    return forms;
  }

  async get(form) {
    if (this.wanted.has(form)) return;
    this.wanted.add(form);
    try {
      let { state, message } = this.tell((await post(`fork/runs/${this.id}/results`, { form })).forms)[form];
      while (state === "making") {
        await new Promise((after) => setTimeout(after, LOOK_MILLISECONDS));
        const found = await got(`fork/runs/${this.id}/results`);
        if (found) ({ state, message } = this.tell(found.forms)[form]);
      }
      if (state !== "ready") throw new Error(message ?? "It was not made.");
      const link = element("a", { href: `fork/runs/${this.id}/files.zip?form=${form}`, download: "" });
      document.body.append(link);
      link.click();
      link.remove();
      this.close();
    } catch (error) {
      toast(String(error.message));
    }
    this.wanted.delete(form);
  }
}
