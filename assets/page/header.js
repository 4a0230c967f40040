// @ts-check
// The header: light or dark, and opening a settings file.

import { button, element, messageOf, toast } from "./dom.js";
import { post } from "./requests.js";
import { nameSettings } from "./setting_names.js";

const DARK = "tuning-fork-dark";

/**
 * @param {HTMLElement} root
 * @param {{ labels: Record<string, string>, terms: Record<string, Record<string, string>> }} config
 * @param {(value: any) => void} fillForm
 */
export function mountHeader(root, config, fillForm) {
  nameSettings(config.labels, config.terms);
  const stored = localStorage.getItem(DARK);
  if (stored !== null) document.body.classList.toggle("dark", stored === "yes");
  const toggle = button("◐", toggleDark, { class: "tf-theme", "aria-label": "Light or dark" });
  const file = element("input", {
    type: "file",
    accept: ".json,application/json",
    class: "tf-hidden",
    tabindex: -1,
    "aria-label": "settings file",
  });
  file.addEventListener("change", async () => {
    const chosen = file.files?.[0];
    file.value = "";
    if (!chosen) return;
    try {
      await openSettings(await chosen.text(), chosen.name, fillForm);
    } catch (error) {
      toast(messageOf(error));
    }
  });
  const open = button("Open settings.json", () => file.click(), { class: "tf-open" });
  root.querySelector("header")?.append(open, file, toggle);
}

function toggleDark() {
  const isDark = document.body.classList.toggle("dark");
  localStorage.setItem(DARK, isDark ? "yes" : "no");
}

/**
 * Puts the settings of a file into the form. Raises an error that says what is wrong with them; the form then stays as
 * it is.
 * @param {string} text
 * @param {string} name
 * @param {(value: any) => void} fillForm
 */
async function openSettings(text, name, fillForm) {
  let settings;
  try {
    settings = JSON.parse(text.replace(/^\uFEFF/, ""));
  } catch {
    throw new Error(`${name} is not JSON.`);
  }
  await post("fork/settings", settings); // refuses what is wrong
  fillForm({ settings });
  toast(`The form now holds the settings of ${name}.`);
}
