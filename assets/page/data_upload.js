// @ts-check
// A file from this computer to the server: a button beside the data field, and the field as a place to drop it.

import { button, element } from "./dom.js";
import { bytes } from "./format.js";
import { RefusedError, upload } from "./requests.js";

const FIELD = "f-data-source";
const TRIES = 100;
const TRY_AGAIN = 100; // milliseconds

/**
 * Puts the upload beside the data field. The field belongs to the form and may come later than this.
 * @param {HTMLElement} section the other place to drop a file
 * @param {(path: string) => void} onStored is called with the path of the stored file
 */
export function mountUpload(section, onStored, tries = 0) {
  const field = document.getElementById(FIELD);
  if (field) mountAt(field, section, onStored);
  else if (tries < TRIES) setTimeout(() => mountUpload(section, onStored, tries + 1), TRY_AGAIN);
}

/**
 * @param {HTMLElement} field
 * @param {HTMLElement} section
 * @param {(path: string) => void} onStored
 */
function mountAt(field, section, onStored) {
  const input = element("input", { type: "file", class: "tf-hidden", tabindex: -1, "aria-hidden": "true" });
  const choose = button("Upload a file…", () => input.click());
  const message = element("span", { class: "tf-upload-words", role: "status" });
  const bar = element("progress", { max: 1, value: 0, hidden: true, "aria-label": "Upload" });
  const cancel = button("Cancel", () => sending?.abort(), { hidden: true });
  /** @type {AbortController | null} */
  let sending = null;
  field.append(element("div", { class: "tf-upload" }, [choose, input, bar, cancel, message]));
  input.addEventListener("change", () => {
    if (input.files?.[0]) send(input.files[0]);
    input.value = "";
  });
  for (const target of [field, section]) {
    target.addEventListener("dragover", (event) => {
      event.preventDefault();
      target.classList.add("tf-drop");
    });
    target.addEventListener("dragleave", () => target.classList.remove("tf-drop"));
    target.addEventListener("drop", (event) => {
      event.preventDefault();
      target.classList.remove("tf-drop");
      const file = event.dataTransfer?.files[0];
      if (file) send(file);
    });
  }

  /** @param {string} text */
  function say(text, isRefusal = false) {
    message.textContent = text;
    message.classList.toggle("tf-problem", isRefusal);
    field.classList.toggle("tf-not-taken", isRefusal); // what is wrong with the old choice is not said beside it
  }

  // A refusal stands until the next thing is chosen or pressed; then the old choice speaks for itself again.
  const clearRefusal = () => {
    if (message.classList.contains("tf-problem")) say("");
  };
  document.addEventListener("change", clearRefusal, true);
  document.addEventListener(
    "click",
    (event) => {
      if (event.target instanceof Element && event.target.closest("button")) clearRefusal();
    },
    true,
  );

  /**
   * @param {File} file
   * @param {string} reason
   */
  function refuse(file, reason) {
    const source = /** @type {HTMLInputElement | null} */ (field.querySelector("input:not([type=file]), textarea"));
    const chosen = source?.value
      .split(/[/\\]/)
      .at(-1)
      ?.replace(/ \(uploaded\)$/, "");
    const stays = `${chosen || "what was chosen before"} stays chosen.`;
    say(`${file.name} was not taken: ${reason.replace(/\.$/, "")}; ${stays}`, true);
  }

  /** @param {boolean} isBusy */
  function showProgress(isBusy) {
    bar.hidden = cancel.hidden = !isBusy;
    choose.disabled = isBusy;
  }

  /** @param {File} file */
  async function send(file) {
    if (file.size === 0) {
      refuse(file, "it is empty");
      return;
    }
    sending = new AbortController();
    const onProgress = (/** @type {number} */ sent, /** @type {number} */ total) => {
      bar.value = total ? sent / total : 0;
      say(`${bytes(sent)} of ${bytes(total)}`);
    };
    showProgress(true);
    say(`0 B of ${bytes(file.size)}`);
    try {
      const path = `fork/data/upload?name=${encodeURIComponent(file.name)}`;
      const answer = await upload(path, file, { signal: sending.signal, onProgress });
      showProgress(false);
      say(`${answer.name}, ${bytes(answer.bytes)}`);
      onStored(answer.path);
    } catch (error) {
      showProgress(false);
      if (error instanceof DOMException) say("The upload was cancelled.");
      else refuse(file, uploadFault(error));
    }
  }
}

/** @param {unknown} error */
function uploadFault(error) {
  if (!(error instanceof RefusedError)) return "the upload broke off";
  return error.answer?.message ?? `the server answered ${error.status}`;
}
