// What models and data sets of the hub have in common: Look up, a token field, a card, a download with progress.
// A subclass says which routes it asks, what it sends, and what stands on its card.

import { bytes, element, toast } from "./dom.js";
import { post } from "./live.js";

const POLL = 400;

export class HubCard {
  /** `words`: { what, look, routes, key, field, id }: what it is called, its button, routes, sent name, form field. */
  constructor(root, props, trigger, words) {
    this.props = props;
    this.trigger = trigger;
    this.words = words;
    this.look = element("button", { type: "button", class: "tf-button", onclick: () => this.lookUp() }, words.look);
    this.token = element("input", {
      type: "password",
      autocomplete: "off",
      spellcheck: "false",
      id: words.id,
      "aria-describedby": `${words.id}-help`,
      placeholder: "hf_…",
    });
    this.gate = element("div", { class: "tf-secret", hidden: true }, [
      element("label", { for: words.id }, `Token for a gated or private ${words.what}`),
      this.token,
      element(
        "p",
        { class: "tf-small", id: `${words.id}-help` },
        "Sent to the hub with this request only; it is stored nowhere.",
      ),
    ]);
    this.opener = element(
      "button",
      {
        type: "button",
        class: "tf-button tf-quiet",
        "aria-expanded": "false",
        onclick: () => this.openGate(this.gate.hidden),
      },
      "Token…",
    );
    this.card = element("div", { class: "tf-model", role: "status" });
    root.replaceChildren(
      element("div", { class: "tf-models" }, [
        element("div", { class: "tf-buttons" }, [this.look, this.opener]),
        this.gate,
        this.card,
      ]),
    );
    this.token.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.lookUp();
    });
    // a card of something else than what is in the field would mislead
    document.getElementById(words.field)?.addEventListener("input", () => this.card.replaceChildren());
  }

  /** The form's settings as the server knows them: a field in a closed part of the form is not in the page. */
  settings() {
    return this.props.value?.settings ?? {};
  }

  field(path) {
    return document.querySelector(`#f-${path} input, #f-${path} textarea`)?.value.trim() ?? "";
  }

  openGate(open) {
    this.gate.hidden = !open;
    this.opener.setAttribute("aria-expanded", String(open));
    if (open) this.token.focus();
  }

  async lookUp() {
    this.look.disabled = true;
    this.card.replaceChildren(element("p", { class: "tf-small" }, "Looking…"));
    const asked = this.asked();
    try {
      this.draw(await post(`${this.words.routes}/lookup`, { ...asked, token: this.token.value || null }), asked);
    } catch (error) {
      this.card.replaceChildren(element("p", { class: "tf-problem", role: "alert" }, error.message));
    } finally {
      this.look.disabled = false;
    }
  }

  draw(card, asked) {
    const facts = this.facts(card).filter(([, value]) => value);
    const chips = [card.here ? "on this machine" : "on the hub", ...this.chips(card), card.gated ? "gated" : null]
      .filter(Boolean)
      .map((word) => element("span", { class: "tf-chip" }, word));
    this.progress = element("div");
    this.card.replaceChildren(
      element("p", { class: "tf-name" }, card.id),
      element("div", { class: "tf-chips" }, chips),
      element(
        "dl",
        {},
        facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
      ),
      ...this.more(card),
      ...card.notes.map((text) => element("p", { class: "tf-small" }, text)),
      ...(card.problem ? [element("p", { class: "tf-problem" }, card.problem)] : []),
      this.progress,
    );
    if (card.locked) this.openGate(true);
    if (card.here || card.problem) return;
    if (card.download?.state === "running") this.follow(card.download, asked);
    else this.offer(card, asked, null);
  }

  offer(card, asked, message) {
    const done = card.done_bytes ?? 0,
      total = card.bytes ?? card.total_bytes;
    const words = done > 0 ? `Go on downloading (${bytes(done)} of ${bytes(total)} here)` : `Download ${bytes(total)}`;
    this.progress.replaceChildren(
      ...(message ? [element("p", { class: "tf-problem", role: "alert" }, message)] : []),
      element("button", { type: "button", class: "tf-button tf-primary", onclick: () => this.download(asked) }, words),
    );
  }

  async download(asked) {
    try {
      await this.follow(
        await post(`${this.words.routes}/download`, { ...asked, token: this.token.value || null }),
        asked,
      );
    } catch (error) {
      toast(error.message);
    }
  }

  async follow(first, asked) {
    const { routes, key } = this.words,
      name = asked[key];
    const fill = element("span"),
      words = element("span", { class: "tf-count" });
    const bar = element(
      "span",
      {
        class: "tf-bar",
        role: "progressbar",
        "aria-label": `Download of ${name}`,
        "aria-valuemin": "0",
        "aria-valuemax": "100",
      },
      fill,
    );
    const cancel = element(
      "button",
      {
        type: "button",
        class: "tf-button tf-stop",
        onclick: () => post(`${routes}/cancel`, { [key]: name }).catch((error) => toast(error.message)),
      },
      "Cancel",
    );
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
      const answer = await fetch(`${routes}/download?${key}=${encodeURIComponent(name)}`, { cache: "no-store" }).catch(
        () => null,
      );
      if (answer?.ok) now = await answer.json();
    }
    if (!place.isConnected) return;
    if (now.state === "done") {
      toast(`${name} is on this machine now.`);
      this.token.value = "";
      this.openGate(false);
      this.trigger("downloaded", {});
      await this.lookUp();
    } else this.offer(now, asked, now.message);
  }
}
