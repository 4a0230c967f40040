// Under the model field: "Look up" asks what a model is before anything is fetched; the card downloads it.

import { bytes, element, toast } from "./dom.js";
import { post } from "./live.js";

const POLL = 400;
const TUNED = { chat: "chat-tuned", base: "base", unclear: "has a chat template", encoder: "encoder" };
const TASKS = { causal_lm: "write text", sequence_classification: "choose a class" };

export function mountModels(root, trigger) {
  new Models(root, trigger);
}

class Models {
  constructor(root, trigger) {
    this.trigger = trigger;
    this.look = element("button", { type: "button", class: "tf-button", onclick: () => this.lookUp() }, "Look up");
    this.token = element("input", { type: "password", autocomplete: "off", spellcheck: "false", id: "tf-token",
      "aria-describedby": "tf-token-help", placeholder: "hf_…" });
    this.gate = element("div", { class: "tf-token", hidden: true }, [
      element("label", { for: "tf-token" }, "Token for a gated or private model"), this.token,
      element("p", { class: "tf-small", id: "tf-token-help" }, "Sent to the hub with this request only; it is stored nowhere.")]);
    this.opener = element("button", { type: "button", class: "tf-button tf-quiet", "aria-expanded": "false",
      onclick: () => this.openGate(this.gate.hidden) }, "Token…");
    this.card = element("div", { class: "tf-model", role: "status" });
    root.replaceChildren(element("div", { class: "tf-models" }, [
      element("div", { class: "tf-buttons" }, [this.look, this.opener]), this.gate, this.card]));
    this.token.addEventListener("keydown", (event) => { if (event.key === "Enter") this.lookUp(); });
    // a card of another model than the one in the field would mislead
    document.getElementById("f-model")?.addEventListener("input", () => this.card.replaceChildren());
  }

  field(path) { return document.querySelector(`#f-${path} input, #f-${path} textarea`)?.value.trim() ?? ""; }

  openGate(open) {
    this.gate.hidden = !open;
    this.opener.setAttribute("aria-expanded", String(open));
    if (open) this.token.focus();
  }

  asked() { return { model: this.field("model"), revision: this.field("revision") || null, token: this.token.value || null }; }

  async lookUp() {
    this.look.disabled = true;
    this.card.replaceChildren(element("p", { class: "tf-small" }, "Looking…"));
    const asked = this.asked();
    try {
      this.draw(await post("fork/models/lookup", asked), asked);
    } catch (error) {
      this.card.replaceChildren(element("p", { class: "tf-problem", role: "alert" }, error.message));
    } finally { this.look.disabled = false; }
  }

  draw(card, asked) {
    const rows = [
      ["Architecture", card.architecture], ["Parameters", card.parameters === null ? null : count(card.parameters)],
      [card.here ? "Size on disk" : "To download", bytes(card.bytes)],
      ["Licence", card.licence ?? (card.source === "hub" && !card.here ? "not stated" : null)],
      ["Context", card.max_positions === null ? null : `${card.max_positions.toLocaleString("en")} tokens`],
      ["Made for", card.tasks.map((task) => TASKS[task]).join(", ") || null],
    ].filter(([, value]) => value);
    const facts = element("dl", {}, rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
    const chips = [card.here ? "on this machine" : "on the hub", TUNED[card.tuned], card.gated ? "gated" : null]
      .filter(Boolean).map((word) => element("span", { class: "tf-chip" }, word));
    const fits = element("ul", { class: "tf-fits" }, card.fits.map((one) => element("li", {}, [
      element("span", { class: "tf-chip", "data-verdict": one.fits ? "fits" : "over" }, one.fits ? "fits" : "does not fit"),
      ` ${one.words}: up to ${bytes(one.bytes)} of ${bytes(one.device_bytes)}`])));
    this.progress = element("div");
    this.card.replaceChildren(
      element("p", { class: "tf-name" }, card.id), element("div", { class: "tf-chips" }, chips), facts, fits,
      ...card.notes.map((text) => element("p", { class: "tf-small" }, text)),
      ...(card.problem ? [element("p", { class: "tf-problem" }, card.problem)] : []), this.progress);
    if (card.locked) this.openGate(true);
    if (card.here || card.problem) return;
    if (card.download?.state === "running") this.follow(card.download, asked);
    else this.offer(card, asked, null);
  }

  offer(card, asked, message) {
    const done = card.done_bytes ?? 0, total = card.bytes ?? card.total_bytes;
    const words = done > 0 ? `Go on downloading (${bytes(done)} of ${bytes(total)} here)` : `Download ${bytes(total)}`;
    this.progress.replaceChildren(
      ...(message ? [element("p", { class: "tf-problem", role: "alert" }, message)] : []),
      element("button", { type: "button", class: "tf-button tf-primary", onclick: () => this.download(asked) }, words));
  }

  async download(asked) {
    try {
      await this.follow(await post("fork/models/download", { ...asked, token: this.token.value || null }), asked);
    } catch (error) { toast(error.message); }
  }

  async follow(first, asked) {
    const fill = element("span"), words = element("span", { class: "tf-count" });
    const bar = element("span", { class: "tf-bar", role: "progressbar", "aria-label": `Download of ${asked.model}`,
      "aria-valuemin": "0", "aria-valuemax": "100" }, fill);
    const cancel = element("button", { type: "button", class: "tf-button tf-stop",
      onclick: () => post("fork/models/cancel", { model: asked.model }).catch((error) => toast(error.message)) }, "Cancel");
    const place = element("div", { class: "tf-progress" }, [bar, words, cancel]);
    this.progress.replaceChildren(place);
    cancel.focus();
    let now = first;
    while (now.state === "running" && place.isConnected) {
      const share = now.total_bytes ? Math.min(100, (100 * now.done_bytes) / now.total_bytes) : 0;
      fill.style.width = `${share}%`;
      bar.setAttribute("aria-valuenow", String(Math.round(share)));
      words.textContent = `${bytes(now.done_bytes)} of ${bytes(now.total_bytes)}`;
      await new Promise((resolve) => setTimeout(resolve, POLL));
      const answer = await fetch(`fork/models/download?model=${encodeURIComponent(asked.model)}`, { cache: "no-store" }).catch(() => null);
      if (answer?.ok) now = await answer.json();
    }
    if (!place.isConnected) return;
    if (now.state === "done") {
      toast(`${asked.model} is on this machine now.`);
      this.token.value = "";
      this.openGate(false);
      this.trigger("downloaded", {});
      await this.lookUp();
    } else this.offer(now, asked, now.message);
  }
}

function count(number) {
  if (number >= 1e9) return `${(number / 1e9).toPrecision(3)} billion`;
  if (number >= 1e6) return `${(number / 1e6).toPrecision(3)} million`;
  return number.toLocaleString("en");
}
