// What Gradio's form lacks for people without a mouse or without sight: radio buttons that are one group, with a name.

/** Gradio names each radio button by itself, anew at each change: then Tab stops at every one, and arrows do nothing. */
export function tidyForm() {
  const form = document.getElementById("tf-form");
  if (!form) return;
  const tidy = () => {
    for (const radio of form.querySelectorAll("fieldset[id] input[type=radio]")) {
      const group = radio.closest("fieldset");
      if (radio.name !== group.id) radio.name = group.id;
      if (!group.hasAttribute("aria-label")) {
        group.setAttribute("aria-label", group.querySelector("[data-testid=block-info]")?.textContent ?? "");
      }
    }
  };
  // a list that scrolls would be a stop of its own for Tab, and closes under it
  document.addEventListener(
    "keydown",
    (event) => {
      if (event.key === "Tab") for (const list of document.querySelectorAll("ul[role=listbox]")) list.tabIndex = -1;
    },
    true,
  );
  // Gradio opens a list when its field gets the focus: after Escape has closed it, a click must do that too
  document.addEventListener(
    "pointerdown",
    (event) => {
      const input = event.target.closest?.("#tf-form .tf-field input[role]");
      if (input && input === document.activeElement && !input.closest(".tf-field").querySelector("ul[role=listbox]"))
        input.blur();
    },
    true,
  );
  new MutationObserver(tidy).observe(form, {
    subtree: true,
    childList: true,
    attributes: true,
    attributeFilter: ["name"],
  });
  tidy();
}
