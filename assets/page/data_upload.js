// A file from this computer to the server: a button beside the data field, and the field as a place to drop it.

import { bytes, element } from "./dom.js";
import { OWN } from "./requests.js";

const FIELD = "f-data-source";
const TRIES = 100;

/** `done` hears the stored file's path. The field belongs to the form and may come later than this. */
export function mountUpload(section, done, tries = 0) {
  const field = document.getElementById(FIELD);
  if (!field) {
    if (tries < TRIES) setTimeout(() => mountUpload(section, done, tries + 1), 100);
    return;
  }
  const input = element("input", { type: "file", class: "tf-hidden", tabindex: -1, "aria-hidden": "true" });
  const button = element(
    "button",
    { type: "button", class: "tf-button", onclick: () => input.click() },
    "Upload a file…",
  );
  const message = element("span", { class: "tf-upload-words", role: "status" });
  const bar = element("progress", { max: 1, value: 0, hidden: true, "aria-label": "Upload" });
  const stop = element("button", { type: "button", class: "tf-button", hidden: true }, "Cancel");
  field.append(element("div", { class: "tf-upload" }, [button, input, bar, stop, message]));
  input.addEventListener("change", () => {
    if (input.files[0]) send(input.files[0]);
    input.value = "";
  });
  for (const place of [field, section]) {
    place.addEventListener("dragover", (event) => {
      event.preventDefault();
      place.classList.add("tf-drop");
    });
    place.addEventListener("dragleave", () => place.classList.remove("tf-drop"));
    place.addEventListener("drop", (event) => {
      event.preventDefault();
      place.classList.remove("tf-drop");
      if (event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
    });
  }

  function say(text, wrong = false) {
    message.textContent = text;
    message.classList.toggle("tf-problem", wrong);
    field.classList.toggle("tf-not-taken", wrong); // what is wrong with the old choice is not said beside it
  }

  // A refusal stands until the next thing is chosen or pressed; then the old choice speaks for itself again.
  const forget = () => {
    if (message.classList.contains("tf-problem")) say("");
  };
  document.addEventListener("change", forget, true);
  document.addEventListener(
    "click",
    (event) => {
      if (event.target.closest?.("button")) forget();
    },
    true,
  );

  function refuse(file, why) {
    const chosen = field
      .querySelector("input:not([type=file]), textarea")
      ?.value.split(/[/\\]/)
      .pop()
      .replace(/ \(uploaded\)$/, "");
    say(
      `${file.name} was not taken: ${why.replace(/\.$/, "")}; ${chosen || "what was chosen before"} stays chosen.`,
      true,
    );
  }

  function send(file) {
    if (file.size === 0) {
      refuse(file, "it is empty");
      return;
    }
    const request = new XMLHttpRequest();
    const busy = (on) => {
      bar.hidden = stop.hidden = !on;
      button.disabled = on;
    };
    stop.onclick = () => request.abort();
    request.upload.onprogress = (event) => {
      bar.value = event.total ? event.loaded / event.total : 0;
      say(`${bytes(event.loaded)} of ${bytes(event.total)}`);
    };
    request.onload = () => {
      busy(false);
      let answer = {};
      try {
        answer = JSON.parse(request.responseText);
      } catch {
        /* told below */
      }
      if (request.status === 201) {
        say(`${answer.name}, ${bytes(answer.bytes)}`);
        done(answer.path);
      } else refuse(file, answer.message ?? `the server answered ${request.status}`);
    };
    request.onerror = () => {
      busy(false);
      refuse(file, "the upload broke off");
    };
    request.onabort = () => {
      busy(false);
      say("The upload was cancelled.");
    };
    request.open("POST", `fork/data/upload?name=${encodeURIComponent(file.name)}`);
    for (const [name, value] of Object.entries(OWN)) request.setRequestHeader(name, value);
    busy(true);
    say(`0 B of ${bytes(file.size)}`);
    request.send(file);
  }
}
