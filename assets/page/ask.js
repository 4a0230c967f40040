// Asking: one prompt to the untouched base model and to the trained one, answers side by side.

import { begin, onChange, post, state } from "./live.js";
import { element } from "./dom.js";

// A run that trains answers between two updates, with what it has learned so far; one that failed may have left nothing.
const ANSWERS = (run) => ["finished", "cancelled"].includes(run.state) || (run.state === "running" && run.step > 0);

export function mountAsk(root, config) {
  const select = element("select");
  const prompt = element("textarea", { rows: 3, maxlength: 4000, placeholder: "Type a prompt" });
  const ask = element("button", { type: "submit", class: "tf-button tf-primary" }, "Ask");
  const length = element("input", { type: "number", min: 1, max: 512, value: 32 });
  const warmth = element("input", { type: "number", min: 0, max: 2, step: 0.1, value: 0 });
  const message = element("p", { class: "tf-problem", role: "alert", hidden: true });
  const examples = element("div", { class: "tf-examples" });
  const answers = element("div", { class: "tf-answers", "aria-live": "polite" });
  const form = element("form", { class: "tf-ask" }, [
    element("div", { class: "tf-controls" }, [
      element("label", { class: "tf-control" }, [element("span", {}, "run"), select]),
      element("label", { class: "tf-control" }, [element("span", {}, "new tokens"), length]),
      element("label", { class: "tf-control", title: "0 always takes the likeliest next token" }, [element("span", {}, "temperature"), warmth]),
    ]),
    element("label", { class: "tf-ask-prompt" }, [element("span", {}, "prompt"), prompt]),
    examples, ask, message,
  ]);
  const card = element("section", { class: "tf-card", "aria-label": "Ask the model" }, [
    element("h2", {}, "Ask the base model and the trained one"), form, answers]);
  root.replaceChildren(card);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    message.hidden = true;
    if (!prompt.value.trim()) { tell("Type a prompt first."); prompt.focus(); return; }
    const asked = prompt.value, name = select.selectedOptions[0]?.textContent ?? "";
    ask.disabled = true;
    ask.textContent = "Asking…";
    try {
      const result = await post(`fork/runs/${select.value}/ask`, {
        prompts: [asked], max_new_tokens: Number(length.value), temperature: Number(warmth.value), seed: 0 });
      answers.prepend(row(asked, name, result.base?.[0], result.trained?.[0]));
    } catch (error) { tell(String(error.message)); }
    ask.disabled = false;
    ask.textContent = "Ask";
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  function tell(text) { message.textContent = text; message.hidden = false; }

  let listed = "";
  onChange(() => {
    const able = state.runs.filter(ANSWERS);
    card.hidden = able.length === 0;
    const now = able.map((run) => `${run.run_id}/${run.name}/${run.state}`).join("|");
    if (now === listed) return;
    listed = now;
    const chosen = select.value;
    select.replaceChildren(...able.map((run) => element("option", { value: run.run_id }, run.name || run.run_id)));
    if (able.some((run) => run.run_id === chosen)) select.value = chosen;
    suggest();
  });
  select.addEventListener("change", suggest);
  function suggest() {
    const run = state.runs.find((other) => other.run_id === select.value);
    const prompts = config.examples[run?.settings.data.source] ?? [];
    examples.replaceChildren(...prompts.map((text) => element("button", { type: "button", class: "tf-button",
      onclick: () => { prompt.value = text; prompt.focus(); } }, text)));
    if (!prompt.value && prompts.length) prompt.value = prompts[0];
  }
  begin();
}

function row(asked, name, base, trained) {
  const cell = (title, text) => element("div", { class: "tf-answer" }, [
    element("h3", {}, title), element("p", {}, text === null || text === undefined || text === "" ? "(an empty answer)" : text)]);
  return element("article", { class: "tf-answer-row" }, [
    element("p", { class: "tf-asked" }, asked), cell("base model", base), cell(`after “${name}”`, trained)]);
}
