// @ts-check
// What Gradio's form lacks for people without a mouse or without sight: radio buttons that are one group, with a name.

/** Gives each group of radio buttons one name: Gradio names each by itself, so that Tab stops at every one. */
export function tidyForm() {
  const form = document.getElementById("tf-form");
  if (!form) return;
  // a list that scrolls would be a stop of its own for Tab, and closes under it
  document.addEventListener("keydown", skipLists, true);
  // Gradio opens a list when its field gets the focus: after Escape has closed it, a click must do that too
  document.addEventListener("pointerdown", reopenList, true);
  const tidy = () => nameGroups(form);
  const changes = { subtree: true, childList: true, attributes: true, attributeFilter: ["name"] };
  new MutationObserver(tidy).observe(form, changes);
  tidy();
}

/**
 * Gradio names the buttons anew at each change.
 * @param {HTMLElement} form
 */
function nameGroups(form) {
  const radios = /** @type {NodeListOf<HTMLInputElement>} */ (form.querySelectorAll("fieldset[id] input[type=radio]"));
  for (const radio of radios) {
    const group = /** @type {HTMLFieldSetElement} */ (radio.closest("fieldset"));
    if (radio.name !== group.id) radio.name = group.id;
    if (group.hasAttribute("aria-label")) continue;
    group.setAttribute("aria-label", group.querySelector("[data-testid=block-info]")?.textContent ?? "");
  }
}

/** @param {KeyboardEvent} event */
function skipLists(event) {
  if (event.key !== "Tab") return;
  const lists = /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("ul[role=listbox]"));
  for (const list of lists) list.tabIndex = -1;
}

/** @param {PointerEvent} event */
function reopenList(event) {
  if (!(event.target instanceof Element)) return;
  const input = event.target.closest("#tf-form .tf-field input[role]");
  if (!(input instanceof HTMLElement) || input !== document.activeElement) return;
  if (!input.closest(".tf-field")?.querySelector("ul[role=listbox]")) input.blur();
}
