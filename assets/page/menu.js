// @ts-check
// A menu behind a button. What it stands in may scroll sideways, so the open list is placed on the page, not inside it.

import { element } from "./dom.js";

const GAP = 4; // pixels between the button and the list
const EDGE = 8; // pixels between the list and the window's edge

/** @type {Set<Menu>} */
const openMenus = new Set();
let listening = false;

/** One listener for all menus: an open one closes at a press elsewhere, and stays beside its button in a scroll. */
function listen() {
  if (listening) return;
  listening = true;
  document.addEventListener("click", (event) => {
    for (const menu of openMenus) {
      if (!menu.node.contains(/** @type {Node} */ (event.target))) menu.node.open = false;
    }
  });
  document.addEventListener(
    "scroll",
    () => {
      for (const menu of openMenus) menu.followScroll();
    },
    { capture: true, passive: true },
  );
}

export class Menu {
  /**
   * @param {HTMLElement[]} entries
   * @param {() => void} onOpen
   */
  constructor(entries, onOpen) {
    this.summary = element("summary", {}, "⋯");
    this.list = element("div", {}, entries);
    this.node = element("details", { class: "tf-menu" }, [this.summary, this.list]);
    this.node.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.node.open) this.close();
    });
    this.node.addEventListener("toggle", () => {
      if (!this.node.open) {
        openMenus.delete(this);
        return;
      }
      for (const other of openMenus) other.node.open = false;
      openMenus.add(this);
      this.place();
      onOpen();
    });
    listen();
  }

  /** Names the button for people who cannot see what it stands beside. @param {string} text */
  name(text) {
    this.summary.setAttribute("aria-label", text);
  }

  /** Closes the menu; its button has the focus then. */
  close() {
    this.node.open = false;
    this.focus();
  }

  focus() {
    this.summary.focus();
  }

  /** Puts the open list under its button, or over it where there is no room below. */
  place() {
    if (!this.node.open) return;
    const box = this.summary.getBoundingClientRect();
    const { offsetHeight: height, offsetWidth: width } = this.list;
    const fitsBelow = box.bottom + height + 2 * GAP < innerHeight;
    this.list.style.top = `${fitsBelow ? box.bottom + GAP : Math.max(GAP, box.top - height - GAP)}px`;
    this.list.style.left = `${Math.max(EDGE, Math.min(box.right - width, innerWidth - width - EDGE))}px`;
  }

  /** Moves the open list with its button, and closes it where that is out of sight. */
  followScroll() {
    const box = this.summary.getBoundingClientRect();
    if (box.bottom < 0 || box.top > innerHeight) this.node.open = false;
    else this.place();
  }
}
