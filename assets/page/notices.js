// @ts-check
// What is reported before Start: everything left out, guessed, renamed, replaced or cut, one sentence each with its
// count.

import { element } from "./dom.js";
import { plural } from "./format.js";
import { inPageWords, settingName } from "./setting_names.js";

/** @typedef {import("./shapes").Notice} Notice */

const IN_SIGHT = 3;
/** Milliseconds that another list has to stand before it is drawn: a number that is typed changes it at each digit. */
const SETTLED = 350;

/** @param {Notice} notice */
function line(notice) {
  return element("li", {}, [
    element("strong", {}, settingName(notice.field)),
    " ",
    element("span", {}, inPageWords(notice.message)),
  ]);
}

/** @param {Notice} notice */
function keyOf(notice) {
  return `${settingName(notice.field)}\n${notice.message}`;
}

/** @param {Notice[]} notices */
export function noticeList(notices) {
  return element("ul", { class: "tf-notices" }, notices.map(line));
}

/** The list over the Start button: the first few in sight, the others folded. */
export class BeforeStart {
  constructor() {
    this.count = element("span", { class: "tf-before-count" });
    this.note = element("p", { class: "tf-small", hidden: true }, "Of the last settings that could be read.");
    this.problems = element("ul", { class: "tf-notices" });
    this.first = element("ul", { class: "tf-notices" });
    this.others = element("ul", { class: "tf-notices" });
    this.summary = element("summary", {});
    this.fold = element("details", {}, [this.summary, this.others]);
    const attributes = { class: "tf-before-list", role: "group", "aria-label": "Notices before Start" };
    this.list = element("div", attributes, [this.note, this.problems, this.first, this.fold]);
    this.section = element("section", { class: "tf-before", "aria-label": "Before you start", hidden: true }, [
      element("h2", {}, ["Before you start ", this.count]),
      this.list,
    ]);
    // the region is there from the beginning: what comes into it later is announced, once the person has paused
    this.node = element("div", { "aria-live": "polite", "aria-relevant": "additions text" }, this.section);
    this.fold.addEventListener("toggle", () => this.allowScroll());
    addEventListener("resize", () => this.allowScroll());
    /** @type {string | null} */
    this.drawn = null;
    this.hasProblems = false;
    /** @type {number | undefined} */
    this.timer = undefined;
  }

  /**
   * Where the settings are refused, the last list stays, and says so; where they are of another model, data set or task
   * than that list, their problems stand here instead.
   * @param {Notice[]} notices
   * @param {boolean} isCurrent whether the notices are those of the settings in the form
   * @param {string[] | null} problems sentences that stand instead of the notices
   */
  show(notices, isCurrent, problems) {
    this.section.classList.toggle("tf-earlier", !isCurrent && !problems);
    this.note.hidden = isCurrent || problems !== null;
    fill(
      this.problems,
      (problems ?? []).map((text) => element("li", { class: "tf-problem" }, text)),
    );
    if (!isCurrent && !problems && !this.hasProblems) return;
    const key = notices.map(keyOf).join("\n\n");
    clearTimeout(this.timer);
    if (key === this.drawn && !problems && !this.hasProblems) return;
    this.hasProblems = problems !== null;
    const draw = () => {
      this.drawn = key;
      this.draw(notices);
    };
    if (this.drawn === null || problems) draw();
    else this.timer = setTimeout(draw, SETTLED);
  }

  /** @param {Notice[]} notices */
  draw(notices) {
    const problems = this.problems.children.length;
    this.section.hidden = notices.length + problems === 0;
    this.count.textContent = problems ? plural(problems, "problem") : plural(notices.length, "notice");
    const before = new Map([...this.section.querySelectorAll("li")].map((node) => [node.dataset.key, node]));
    const nodes = notices.map((notice) => {
      const node = before.get(keyOf(notice)) ?? line(notice); // one that stays is not announced again
      node.dataset.key = keyOf(notice);
      return node;
    });
    fill(this.first, nodes.slice(0, IN_SIGHT));
    fill(this.others, nodes.slice(IN_SIGHT));
    this.fold.hidden = nodes.length <= IN_SIGHT;
    this.summary.textContent = `${nodes.length - IN_SIGHT} more`;
    this.allowScroll();
  }

  /** Lets a list that is longer than its box be scrolled without a mouse. */
  allowScroll() {
    requestAnimationFrame(() => {
      if (this.list.scrollHeight > this.list.clientHeight + 1) this.list.tabIndex = 0;
      else this.list.removeAttribute("tabindex");
    });
  }
}

/**
 * Sets the children of a list only where they are others.
 * @param {HTMLElement} list
 * @param {Node[]} nodes
 */
function fill(list, nodes) {
  const isSame = nodes.length === list.children.length && nodes.every((node, index) => list.children[index] === node);
  if (!isSame) list.replaceChildren(...nodes);
}
