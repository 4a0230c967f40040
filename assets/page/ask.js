// Asking: one prompt to the untouched base model and to the trained one, answers side by side.

import { begin, onChange, postLines, runById, state } from "./live.js";
import { got } from "./requests.js";
import { element } from "./dom.js";
import { RunChoice } from "./run_choice.js";

// A run that trains answers between two updates, with what it has learned so far; one that failed may have left nothing.
const ANSWERS = (run) => ["finished", "cancelled"].includes(run.state) || (run.state === "running" && run.step > 0);

const MOST = 64; // prompts at once, as the server allows

export function mountAsk(root) {
  const choice = new RunChoice(),
    { select } = choice;
  const prompt = element("textarea", { rows: 3, placeholder: "Type a prompt" });
  const ask = element("button", { type: "submit", class: "tf-button tf-primary" }, "Ask");
  // text fields: a number field drops what it cannot read, and would send 0 for it
  const number = (value, mode) =>
    element("input", { type: "text", inputmode: mode, autocomplete: "off", class: "tf-number", value });
  const length = number("32", "numeric"),
    seed = number("0", "numeric"),
    warmth = number("0", "decimal");
  const chat = element("input", { type: "checkbox" });
  const weights = element(
    "select",
    {},
    ["last", "best"].map((which) => element("option", { value: which }, which)),
  );
  const file = element("input", {
    type: "file",
    accept: ".txt,.jsonl,text/plain",
    class: "tf-hidden",
    tabindex: -1,
    "aria-label": "questions from a file",
  });
  const many = element(
    "button",
    { type: "button", class: "tf-button", onclick: () => file.click() },
    "Prompts from a file",
  );
  const message = element("p", { class: "tf-problem", role: "alert", hidden: true });
  const system = element("p", { class: "tf-small", hidden: true });
  const examples = element("div", { class: "tf-examples" });
  const answers = element("div", { class: "tf-answers", "aria-live": "polite" });
  const form = element("form", { class: "tf-ask" }, [
    element("div", { class: "tf-controls" }, [
      element("label", { class: "tf-control" }, [element("span", {}, "run"), select]),
      element("label", { class: "tf-control", title: "The best are those of its best evaluation" }, [
        element("span", {}, "weights"),
        weights,
      ]),
      element("label", { class: "tf-control" }, [element("span", {}, "new tokens"), length]),
      element("label", { class: "tf-control", title: "0 always takes the likeliest next token" }, [
        element("span", {}, "temperature"),
        warmth,
      ]),
      element("label", { class: "tf-control", title: "Matters only above temperature 0" }, [
        element("span", {}, "seed"),
        seed,
      ]),
      element(
        "label",
        { class: "tf-control", title: "Write the prompt as a user's message with the model's chat template" },
        [chat, element("span", {}, "as a chat")],
      ),
    ]),
    element("label", { class: "tf-ask-prompt" }, [element("span", {}, "prompt"), prompt]),
    system,
    examples,
    element("div", { class: "tf-controls" }, [ask, many, file]),
    message,
  ]);
  const card = element("section", { class: "tf-card", "aria-label": "Ask the model" }, [
    element("h2", {}, "Ask the base model and the trained one"),
    form,
    answers,
  ]);
  root.replaceChildren(card);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    message.hidden = true;
    if (!prompt.value.trim()) {
      tell("Type a prompt first.");
      prompt.focus();
      return;
    }
    await put([prompt.value]);
  });
  async function put(prompts) {
    const name = select.selectedOptions[0]?.textContent ?? "",
      base = baseWords(runById(select.value));
    const rows = prompts.map((text) => new AnswerRow(text, name, base));
    for (const field of [length, warmth, seed]) field.removeAttribute("aria-invalid");
    ask.disabled = many.disabled = choice.chosen = true; // what is asked goes on being asked
    ask.textContent = "Asking…";
    try {
      const body = {
        prompts,
        max_new_tokens: typed(length),
        temperature: typed(warmth),
        seed: typed(seed),
        chat: chat.checked,
        weights: weights.value,
      };
      await postLines(`fork/runs/${select.value}/ask`, body, (line) => {
        if (line.message) throw new Error(line.message);
        if (!rows[0].node.isConnected) answers.prepend(...rows.map((row) => row.node));
        if (line.answers) rows.forEach((row, number) => row.end(line.answers, number));
        else if (line.again) rows.forEach((row) => row.clear());
        else rows[line.index].add(line.side, line.text);
      });
    } catch (error) {
      tell(String(error.message));
      for (const row of rows) row.cut();
      const of = { max_new_tokens: length, temperature: warmth, seed };
      const wrong = (error.problems ?? []).map((problem) => of[problem.field]).filter(Boolean);
      for (const field of wrong) field.setAttribute("aria-invalid", "true");
      wrong[0]?.focus();
    }
    ask.disabled = many.disabled = false;
    ask.textContent = "Ask";
  }
  file.addEventListener("change", async () => {
    const chosen = file.files[0];
    file.value = "";
    if (!chosen) return;
    message.hidden = true;
    try {
      await put(promptsOf(await chosen.text(), chosen.name));
    } catch (error) {
      tell(String(error.message));
    }
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  function tell(text) {
    message.textContent = text;
    message.hidden = false;
  }

  let listed = "",
    example = ""; // the one that stands in the field as it was offered
  onChange(() => {
    const able = state.runs.filter(ANSWERS);
    card.hidden = able.length === 0;
    const now = able.map((run) => `${run.run_id}/${run.name}/${run.state}`).join("|");
    if (now === listed) return;
    listed = now;
    choice.offer(able);
    suggest();
  });
  select.addEventListener("change", suggest);
  async function suggest() {
    // a few of the rows that this run is evaluated on, not trained
    const run = state.runs.find((other) => other.run_id === select.value);
    weights.disabled = run?.state === "running"; // its best are put by when it ends
    if (weights.disabled) weights.value = "last";
    chat.checked = run?.chat === true; // a run that learned from conversations is asked as it was taught
    system.hidden = !run?.system_prompt;
    system.textContent = `Both read this run's system prompt first: “${run?.system_prompt}”`;
    const answer = run ? await got(`fork/runs/${run.run_id}/predictions`) : null;
    if (!answer || select.value !== run.run_id) return;
    const prompts = answer.rows
      .map((row) => row.text)
      .filter((text) => text && !text.endsWith("…"))
      .slice(0, 3);
    examples.replaceChildren(
      ...prompts.map((text) =>
        element(
          "button",
          {
            type: "button",
            class: "tf-button",
            onclick: () => {
              prompt.value = example = text;
              prompt.focus();
            },
          },
          text,
        ),
      ),
    );
    if (!prompt.value || prompt.value === example) prompt.value = example = prompts[0] ?? ""; // of the run that is asked now
  }
  begin();
}

/** What the trained model began as: the base model, or what another run has left. */
function baseWords(run) {
  const [id] = run?.settings.model.startsWith("run:") ? run.settings.model.slice(4).split("/") : [];
  return id ? `its base, after “${runById(id)?.name || id}”` : "base model";
}

/** A number where one is typed; anything else as it stands there, for the server to refuse by name. */
function typed(field) {
  const text = field.value.trim();
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : text;
}

/** One prompt a line, or JSON lines with a member `prompt`. */
function promptsOf(text, name) {
  const lines = text
    .replace(/^\uFEFF/, "")
    .split(/\r?\n/)
    .filter((line) => line.trim());
  if (!lines.length) throw new Error(`${name} holds no prompts: write one a line.`);
  if (lines.length > MOST) throw new Error(`${name} holds ${lines.length} prompts; ask at most ${MOST} at once.`);
  return lines.map((line, number) => {
    if (!line.trimStart().startsWith("{")) return line;
    let prompt;
    try {
      prompt = JSON.parse(line).prompt;
    } catch {
      /* told below */
    }
    if (typeof prompt !== "string")
      throw new Error(`Line ${number + 1} of ${name} is no JSON object with a text "prompt".`);
    return prompt;
  });
}

/** A question with its two answers, which grow while they are being written. */
class AnswerRow {
  constructor(asked, name, base) {
    this.texts = { base: element("p"), trained: element("p") };
    this.chances = element("p", { class: "tf-small", hidden: true });
    this.written = element("p", { class: "tf-small", style: "white-space: pre-wrap", hidden: true });
    const cell = (title, parts) => element("div", { class: "tf-answer" }, [element("h3", {}, title), ...parts]);
    this.node = element("article", { class: "tf-answer-row", "aria-busy": "true" }, [
      element("p", { class: "tf-asked" }, asked),
      cell(base, [this.texts.base]),
      cell(`after “${name}”`, [this.texts.trained, this.chances, this.written]),
    ]);
  }

  add(side, text) {
    this.texts[side].append(text);
  }

  /** Answering has begun anew. */
  clear() {
    for (const text of Object.values(this.texts)) text.textContent = "";
  }

  /** No more will come: what has been written stands as it is. */
  cut() {
    for (const text of Object.values(this.texts)) text.textContent += " (not answered to its end)";
    this.node.removeAttribute("aria-busy");
  }

  end({ base, trained, chances, prompts }, number) {
    this.written.textContent = prompts ? `asked as: ${prompts[number]}` : ""; // passages, examples: a method's own words
    this.written.hidden = !prompts;
    this.texts.base.textContent = base?.[number]?.trim() || "(an empty answer)";
    this.texts.trained.textContent = trained?.[number]?.trim() || "(an empty answer)";
    const sure = Object.entries(chances?.[number] ?? {})
      .sort(([, one], [, two]) => two - one)
      .slice(0, 5);
    this.chances.textContent = sure.map(([label, chance]) => `${label} ${(100 * chance).toFixed(1)} %`).join(", ");
    this.chances.hidden = sure.length === 0;
    this.node.removeAttribute("aria-busy");
  }
}
