// A file from this computer to the server: a button beside the data field, and the field as a place to drop it.

import { bytes, element } from "./dom.js";

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
  const button = element("button", { type: "button", class: "tf-button", onclick: () => input.click() }, "Upload a file…");
  const message = element("span", { class: "tf-upload-words", role: "status" });
  const bar = element("progress", { max: 1, value: 0, hidden: true, "aria-label": "Upload" });
  const stop = element("button", { type: "button", class: "tf-button", hidden: true }, "Cancel");
  field.append(element("div", { class: "tf-upload" }, [button, input, bar, stop, message]));
  input.addEventListener("change", () => { if (input.files[0]) send(input.files[0]); input.value = ""; });
  for (const place of [field, section]) {
    place.addEventListener("dragover", (event) => { event.preventDefault(); place.classList.add("tf-drop"); });
    place.addEventListener("dragleave", () => place.classList.remove("tf-drop"));
    place.addEventListener("drop", (event) => {
      event.preventDefault();
      place.classList.remove("tf-drop");
      if (event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
    });
  }

  function send(file) {
    const request = new XMLHttpRequest();
    const say = (text, wrong) => { message.textContent = text; message.classList.toggle("tf-problem", Boolean(wrong)); };
    const busy = (on) => { bar.hidden = stop.hidden = !on; button.disabled = on; };
    stop.onclick = () => request.abort();
    request.upload.onprogress = (event) => {
      bar.value = event.total ? event.loaded / event.total : 0;
      say(`${bytes(event.loaded)} of ${bytes(event.total)}`);
    };
    request.onload = () => {
      busy(false);
      let answer = {};
      try { answer = JSON.parse(request.responseText); } catch { /* told below */ }
      if (request.status === 201) { say(`${answer.name}, ${bytes(answer.bytes)}`); done(answer.path); }
      else say(answer.message ?? `The server answered ${request.status}.`, true);
    };
    request.onerror = () => { busy(false); say("The upload broke off; try again.", true); };
    request.onabort = () => { busy(false); say("The upload was cancelled."); };
    request.open("POST", `fork/data/upload?name=${encodeURIComponent(file.name)}`);
    busy(true);
    say(`0 B of ${bytes(file.size)}`);
    request.send(file);
  }
}
