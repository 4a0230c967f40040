// @ts-check
// What models and data sets of the hub have in common: Look up, a token field, a description, a download with progress.
// A subclass says which routes it asks, what it sends, and what stands in its description.

import { button, element, messageOf, sleep, toast } from "./dom.js";
import { bytes } from "./format.js";
import { getOrNull, post } from "./requests.js";

/** @typedef {import("./shapes").Download} Download */
/** @typedef {import("./shapes").HubDescription} HubDescription */
/** @typedef {(name: string, detail: any) => void} Trigger */

/**
 * What a subclass looks up: what it is called, the text of its button, where its routes are, under which key its name
 * is sent, the id of its field in the form, and the id of its token field.
 * @typedef {{ what: string, look: string, routes: string, key: string, field: string, id: string }} Words
 */

const POLL_MILLISECONDS = 400;

/**
 * @template {HubDescription} Description
 */
export class HubLookUp {
  /**
   * @param {HTMLElement} root
   * @param {{ value?: { settings: any } }} props
   * @param {Trigger} trigger
   * @param {Words} words
   */
  constructor(root, props, trigger, words) {
    this.props = props;
    this.trigger = trigger;
    this.words = words;
    this.lookUpButton = button(words.look, () => this.lookUp());
    this.token = element("input", {
      type: "password",
      autocomplete: "off",
      spellcheck: "false",
      id: words.id,
      "aria-describedby": `${words.id}-help`,
      placeholder: "hf_…",
    });
    const help = "Sent to the hub with this request only; it is stored nowhere.";
    this.tokenField = element("div", { class: "tf-secret", hidden: true }, [
      element("label", { for: words.id }, `Token for a gated or private ${words.what}`),
      this.token,
      element("p", { class: "tf-small", id: `${words.id}-help` }, help),
    ]);
    this.tokenOpener = button("Token…", () => this.openToken(Boolean(this.tokenField.hidden)), {
      class: "tf-quiet",
      "aria-expanded": "false",
    });
    this.description = element("div", { class: "tf-model", role: "status" });
    this.progress = element("div");
    root.replaceChildren(
      element("div", { class: "tf-models" }, [
        element("div", { class: "tf-buttons" }, [this.lookUpButton, this.tokenOpener]),
        this.tokenField,
        this.description,
      ]),
    );
    this.token.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.lookUp();
    });
    // a description of something else than what is in the field would mislead
    document.getElementById(words.field)?.addEventListener("input", () => this.description.replaceChildren());
  }

  // -- what a subclass says -----------------------------------------------------------------------------------------

  /**
   * What is asked about, as the routes take it.
   * @returns {Record<string, any>}
   */
  question() {
    return {};
  }

  /**
   * Names and values; those without a value are left out.
   * @param {Description} _description
   * @returns {[name: string, value: string | null][]}
   */
  facts(_description) {
    return [];
  }

  /**
   * @param {Description} _description
   * @returns {(string | null)[]}
   */
  chips(_description) {
    return [];
  }

  /**
   * @param {Description} _description
   * @returns {Node[]}
   */
  more(_description) {
    return [];
  }

  // -- what they share ----------------------------------------------------------------------------------------------

  /** The form's settings as the server has them: a field in a closed part of the form is not in the page. */
  settings() {
    return this.props.value?.settings ?? {};
  }

  /**
   * What stands in a field of the form.
   * @param {string} path
   */
  field(path) {
    const input = document.querySelector(`#f-${path} input, #f-${path} textarea`);
    return /** @type {HTMLInputElement | null} */ (input)?.value.trim() ?? "";
  }

  /** @param {boolean} isOpen */
  openToken(isOpen) {
    this.tokenField.hidden = !isOpen;
    this.tokenOpener.setAttribute("aria-expanded", String(isOpen));
    if (isOpen) this.token.focus();
  }

  async lookUp() {
    this.lookUpButton.disabled = true;
    this.description.replaceChildren(element("p", { class: "tf-small" }, "Looking…"));
    const question = this.question();
    try {
      this.draw(await this.post("lookup", question), question);
    } catch (error) {
      this.description.replaceChildren(element("p", { class: "tf-problem", role: "alert" }, messageOf(error)));
    } finally {
      this.lookUpButton.disabled = false;
    }
  }

  /**
   * Asks a route about the question, with the token that is typed.
   * @param {"lookup" | "download"} route
   * @param {Record<string, any>} question
   */
  post(route, question) {
    return post(`${this.words.routes}/${route}`, { ...question, token: this.token.value || null });
  }

  /**
   * @param {Description} description
   * @param {Record<string, any>} question
   */
  draw(description, question) {
    const { here, gated, locked, problem, notes, download } = description;
    const facts = this.facts(description).filter(([, value]) => value);
    const words = [here ? "on this machine" : "on the hub", ...this.chips(description), gated ? "gated" : null];
    const chips = words.filter(Boolean).map((word) => element("span", { class: "tf-chip" }, word));
    this.progress = element("div");
    this.description.replaceChildren(
      element("p", { class: "tf-name" }, description.id),
      element("div", { class: "tf-chips" }, chips),
      element(
        "dl",
        {},
        facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
      ),
      ...this.more(description),
      ...notes.map((text) => element("p", { class: "tf-small" }, text)),
      ...(problem ? [element("p", { class: "tf-problem" }, problem)] : []),
      this.progress,
    );
    if (locked) this.openToken(true);
    if (here || problem) return;
    if (download?.state === "running") this.follow(download, question);
    else this.offer(description.done_bytes ?? 0, description.bytes, question, null);
  }

  /**
   * Offers the download, from where an earlier one ended.
   * @param {number} done bytes that are here
   * @param {number | null} total bytes
   * @param {Record<string, any>} question
   * @param {string | null} message why the last download ended
   */
  offer(done, total, question, message) {
    const text = done > 0 ? `Go on downloading (${bytes(done)} of ${bytes(total)} here)` : `Download ${bytes(total)}`;
    this.progress.replaceChildren(
      ...(message ? [element("p", { class: "tf-problem", role: "alert" }, message)] : []),
      button(text, () => this.download(question), { class: "tf-primary" }),
    );
  }

  /** @param {Record<string, any>} question */
  async download(question) {
    try {
      await this.follow(await this.post("download", question), question);
    } catch (error) {
      toast(messageOf(error));
    }
  }

  /**
   * Shows the progress of a download until it ends, or until something else is looked up.
   * @param {Download} first
   * @param {Record<string, any>} question
   */
  async follow(first, question) {
    const { routes, key } = this.words;
    const name = question[key];
    const fill = element("span");
    const text = element("span", { class: "tf-count" });
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
    const stop = () => post(`${routes}/cancel`, { [key]: name }).catch((error) => toast(messageOf(error)));
    const cancel = button("Cancel", stop, { class: "tf-stop" });
    const row = element("div", { class: "tf-progress" }, [bar, text, cancel]);
    this.progress.replaceChildren(row);
    cancel.focus();
    let download = first;
    while (download.state === "running" && row.isConnected) {
      const { done_bytes: done, total_bytes: total } = download;
      const percent = total ? Math.min(100, (100 * done) / total) : 0;
      fill.style.width = `${percent}%`;
      bar.setAttribute("aria-valuenow", String(Math.round(percent)));
      text.textContent = `${bytes(done)} of ${bytes(total)}`;
      await sleep(POLL_MILLISECONDS);
      download = (await getOrNull(`${routes}/download?${key}=${encodeURIComponent(name)}`)) ?? download;
    }
    if (!row.isConnected) return;
    if (download.state !== "done") {
      this.offer(download.done_bytes, download.total_bytes, question, download.message);
      return;
    }
    toast(`${name} is on this machine now.`);
    this.token.value = "";
    this.openToken(false);
    this.trigger("downloaded", {});
    await this.lookUp();
  }
}
