// What is told before Start: everything left out, guessed, renamed, replaced or cut, one sentence each with its count.

import { element } from "./dom.js";

const IN_SIGHT = 3;
/** Milliseconds that another list has to stand before it is drawn: while a number is typed it changes with each digit. */
const SETTLED = 350;

let labels = {},
  terms = {},
  paths = null;

/** The page's labels by the path of their setting, and its words for what can be chosen there; told once, before anything
 * is drawn. Only paths that are no plain word are looked for in messages. */
export function nameSettings(known, words) {
  [labels, terms] = [known, words];
  const plain = Object.keys(known)
    .filter((path) => /[._]/.test(path))
    .sort((one, two) => two.length - one.length);
  const any = plain.map((path) => path.replaceAll(".", "\\.")).join("|");
  paths = any ? new RegExp(`(?<![\\w.])(${any})(?![\\w]|\\.\\w)(?:( to | as | )([a-z_0-9]+)\\b)?`, "g") : null;
}

function labelOf(path) {
  return labels[path]?.replace(/[,(].*/, "").trim();
} // without how it is to be typed

/** A message with the page's own words: settings by their labels, and what is chosen in them as it stands there. */
export function inPageWords(text) {
  return paths
    ? text.replace(paths, (whole, path, to, word) => {
        const name = labelOf(path),
          term = terms[path]?.[word];
        return term ? `“${name}: ${term}”` : `“${name}”${to ?? ""}${word ?? ""}`;
      })
    : text;
}

export function termOf(path, word) {
  return terms[path]?.[word] ?? word;
}

/** What is wrong, for a person: the label of the setting it is about, and the message, which does not repeat its name. */
export function sentence({ field, message }) {
  const name = labelOf(field ?? "");
  return name ? `${name}: ${inPageWords(message)}` : inPageWords(message);
}

/** The name of a setting for a person: its label on the page, else the last word of its path. */
function nameOf({ field }) {
  if (labels[field]) return labelOf(field);
  const last = field.split(".").at(-1).replaceAll("_", " ");
  return last.charAt(0).toUpperCase() + last.slice(1);
}

function line(notice) {
  return element("li", {}, [
    element("strong", {}, nameOf(notice)),
    " ",
    element("span", {}, inPageWords(notice.message)),
  ]);
}

function keyOf(notice) {
  return `${nameOf(notice)}\n${notice.message}`;
}

export function plural(number, word, words = `${word}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? word : words}`;
}

export function noticeList(notices) {
  return element("ul", { class: "tf-notices" }, notices.map(line));
}

/** The list over the Start button: the first few in sight, the others folded. */
export class BeforeStart {
  constructor() {
    this.count = element("span", { class: "tf-told-count" });
    this.note = element("p", { class: "tf-small", hidden: true }, "Of the last settings that could be read.");
    this.problems = element("ul", { class: "tf-notices" });
    this.first = element("ul", { class: "tf-notices" });
    this.others = element("ul", { class: "tf-notices" });
    this.summary = element("summary", {});
    this.fold = element("details", {}, [this.summary, this.others]);
    this.list = element("div", { class: "tf-told-list", role: "group", "aria-label": "What is told before Start" }, [
      this.note,
      this.problems,
      this.first,
      this.fold,
    ]);
    this.card = element("section", { class: "tf-told", "aria-label": "Before you start", hidden: true }, [
      element("h2", {}, ["Before you start ", this.count]),
      this.list,
    ]);
    // the region is there from the beginning: what comes into it later is announced, once the person has paused
    this.node = element("div", { "aria-live": "polite", "aria-relevant": "additions text" }, this.card);
    this.fold.addEventListener("toggle", () => this.allowScroll());
    addEventListener("resize", () => this.allowScroll());
    this.drawn = null;
    this.told = false; // whether problems stand here
    this.timer = null;
  }

  /** `known` is false where the settings are refused: the last list stays, and says so; where they are of another model,
   * data set or task than that list, their `problems` stand here instead. */
  show(notices, known, problems) {
    // problems: sentences
    const gone = problems !== null;
    this.card.classList.toggle("tf-earlier", !known && !gone);
    this.note.hidden = known || gone;
    fill(this.problems, gone ? problems.map((text) => element("li", { class: "tf-problem" }, text)) : []);
    if (!known && !gone && !this.told) return;
    const key = notices.map(keyOf).join("\n\n");
    clearTimeout(this.timer);
    if (key === this.drawn && !gone && !this.told) return;
    this.told = gone;
    const draw = () => {
      this.drawn = key;
      this.draw(notices);
    };
    if (this.drawn === null || gone) draw();
    else this.timer = setTimeout(draw, SETTLED);
  }

  draw(notices) {
    const problems = this.problems.children.length;
    this.card.hidden = notices.length + problems === 0;
    this.count.textContent = problems ? plural(problems, "problem") : plural(notices.length, "notice");
    const there = new Map([...this.card.querySelectorAll("li")].map((node) => [node.dataset.key, node]));
    const nodes = notices.map((notice) => {
      const node = there.get(keyOf(notice)) ?? line(notice); // one that stays is not announced again
      node.dataset.key = keyOf(notice);
      return node;
    });
    fill(this.first, nodes.slice(0, IN_SIGHT));
    fill(this.others, nodes.slice(IN_SIGHT));
    this.fold.hidden = nodes.length <= IN_SIGHT;
    this.summary.textContent = `${nodes.length - IN_SIGHT} more`;
    this.allowScroll();
  }

  /** A list that is longer than its room can be scrolled without a mouse. */
  allowScroll() {
    requestAnimationFrame(() => {
      if (this.list.scrollHeight > this.list.clientHeight + 1) this.list.tabIndex = 0;
      else this.list.removeAttribute("tabindex");
    });
  }
}

function fill(list, nodes) {
  const same = nodes.length === list.children.length && nodes.every((node, place) => list.children[place] === node);
  if (!same) list.replaceChildren(...nodes);
}
