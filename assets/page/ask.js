// @ts-check
// Asking: one prompt to the untouched base model and to the trained one, answers side by side.

import { button, element, messageOf } from "./dom.js";
import { onChange, runById, state } from "./polling.js";
import { numberOrText, promptsIn } from "./prompts.js";
import { getOrNull, postLines, RefusedError } from "./requests.js";
import { RunChoice } from "./run_choice.js";
import { canAnswer, canAnswerWithBest } from "./run_state.js";
import { baseRunId, nameOf, sourceText } from "./run_text.js";

/** @typedef {import("./shapes").Answers} Answers */
/** @typedef {import("./shapes").PredictionRow} PredictionRow */
/** @typedef {import("./shapes").RunLine} RunLine */

const EXAMPLES = 3;
const SHOWN_CLASSES = 5;

/**
 * A text field for a number: a number field drops what it cannot read, and would send 0 for it.
 * @param {string} value
 * @param {"numeric" | "decimal"} mode
 */
function numberField(value, mode) {
  const attributes = { type: "text", inputmode: mode, autocomplete: "off", class: "tf-number", value };
  return element("input", attributes);
}

/**
 * @param {string} label
 * @param {Node} control
 * @param {string | null} title
 */
function labelled(label, control, title = null) {
  return element("label", { class: "tf-control", title }, [element("span", {}, label), control]);
}

/** @param {HTMLElement} root */
export function mountAsk(root) {
  const choice = new RunChoice();
  const { select } = choice;
  const prompt = element("textarea", { rows: 3, placeholder: "Type a prompt" });
  const ask = element("button", { type: "submit", class: "tf-button tf-primary" }, "Ask");
  const length = numberField("32", "numeric");
  const temperature = numberField("0", "decimal");
  const seed = numberField("0", "numeric");
  const chat = element("input", { type: "checkbox" });
  const weights = element(
    "select",
    {},
    ["last", "best"].map((value) => element("option", { value }, value)),
  );
  const file = element("input", {
    type: "file",
    accept: ".txt,.jsonl,text/plain",
    class: "tf-hidden",
    tabindex: -1,
    "aria-label": "questions from a file",
  });
  const fromFile = button("Prompts from a file", () => file.click());
  const message = element("p", { class: "tf-problem", role: "alert", hidden: true });
  const system = element("p", { class: "tf-small", hidden: true });
  const examples = element("div", { class: "tf-examples" });
  const answerList = element("div", { class: "tf-answers", "aria-live": "polite" });
  const asChat = "Write the prompt as a user's message with the model's chat template";
  const form = element("form", { class: "tf-ask" }, [
    element("div", { class: "tf-controls" }, [
      labelled("run", select),
      labelled("weights", weights, "The best are those of its best evaluation"),
      labelled("new tokens", length),
      labelled("temperature", temperature, "0 always takes the likeliest next token"),
      labelled("seed", seed, "Matters only above temperature 0"),
      element("label", { class: "tf-control", title: asChat }, [chat, element("span", {}, "as a chat")]),
    ]),
    element("label", { class: "tf-ask-prompt" }, [element("span", {}, "prompt"), prompt]),
    system,
    examples,
    element("div", { class: "tf-controls" }, [ask, fromFile, file]),
    message,
  ]);
  const section = element("section", { class: "tf-card", "aria-label": "Ask the model" }, [
    element("h2", {}, "Ask the base model and the trained one"),
    form,
    answerList,
  ]);
  root.replaceChildren(section);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    message.hidden = true;
    if (prompt.value.trim()) {
      await send([prompt.value]);
      return;
    }
    say("Type a prompt first.");
    prompt.focus();
  });
  file.addEventListener("change", async () => {
    const chosen = file.files?.[0];
    file.value = "";
    if (!chosen) return;
    message.hidden = true;
    try {
      await send(promptsIn(await chosen.text(), chosen.name));
    } catch (error) {
      say(messageOf(error));
    }
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });

  /** @param {string} text */
  function say(text) {
    message.textContent = text;
    message.hidden = false;
  }

  /** @type {Record<string, HTMLInputElement>} */
  const numberFields = { max_new_tokens: length, temperature, seed };

  /** @param {string[]} prompts */
  async function send(prompts) {
    const name = select.selectedOptions[0]?.textContent ?? "";
    const base = baseText(runById(select.value));
    const rows = prompts.map((text) => new AnswerRow(text, name, base));
    for (const field of Object.values(numberFields)) field.removeAttribute("aria-invalid");
    ask.disabled = fromFile.disabled = true;
    choice.chosen = true; // what is asked goes on being asked
    ask.textContent = "Asking…";
    const numbers = Object.entries(numberFields).map(([key, field]) => [key, numberOrText(field.value)]);
    const question = { prompts, ...Object.fromEntries(numbers), chat: chat.checked, weights: weights.value };
    try {
      await postLines(`fork/runs/${select.value}/ask`, question, (line) => take(rows, line));
    } catch (error) {
      say(messageOf(error));
      for (const row of rows) row.breakOff();
      if (error instanceof RefusedError) markWrong(error);
    }
    ask.disabled = fromFile.disabled = false;
    ask.textContent = "Ask";
  }

  /**
   * One line of the answer: a piece of text, a new beginning, the whole answers, or what went wrong.
   * @param {AnswerRow[]} rows
   * @param {any} line
   */
  function take(rows, line) {
    if (line.message) throw new Error(line.message);
    if (!rows[0].node.isConnected) answerList.prepend(...rows.map((row) => row.node));
    if (line.answers) rows.forEach((row, index) => row.end(line.answers, index));
    else if (line.again) rows.forEach((row) => row.clear());
    else rows[line.index].add(line.side, line.text);
  }

  /** @param {RefusedError} error */
  function markWrong({ problems }) {
    const wrong = problems.map(({ field }) => numberFields[field]).filter(Boolean);
    for (const field of wrong) field.setAttribute("aria-invalid", "true");
    wrong[0]?.focus();
  }

  let listed = "";
  onChange(() => {
    const runs = state.runs.filter(canAnswer);
    section.hidden = runs.length === 0;
    const key = runs.map((run) => `${run.run_id}/${run.name}/${run.state}`).join("|");
    if (key === listed) return;
    listed = key;
    choice.offer(runs);
    followRun();
  });
  select.addEventListener("change", followRun);

  let example = ""; // the one that stands in the field as it was offered
  /** Fits the controls to the chosen run, and offers a few of the rows that it is evaluated on, not trained. */
  async function followRun() {
    const run = runById(select.value);
    weights.disabled = run !== undefined && !canAnswerWithBest(run);
    if (weights.disabled) weights.value = "last";
    chat.checked = run?.chat === true; // a run that learned from conversations is asked in the same form
    system.hidden = !run?.system_prompt;
    system.textContent = `Both read this run's system prompt first: “${run?.system_prompt}”`;
    const answer = run ? await getOrNull(`fork/runs/${run.run_id}/predictions`) : null;
    if (!answer || select.value !== run?.run_id) return;
    /** @type {PredictionRow[]} */
    const rows = answer.rows;
    const texts = rows.map(({ text }) => text).filter((text) => text && !text.endsWith("…"));
    const prompts = texts.slice(0, EXAMPLES);
    examples.replaceChildren(...prompts.map((text) => button(text, () => useExample(text))));
    if (!prompt.value || prompt.value === example) prompt.value = example = prompts[0] ?? "";
  }

  /** @param {string} text */
  function useExample(text) {
    prompt.value = example = text;
    prompt.focus();
  }
}

/**
 * What the trained model began as: the base model, or what another run has left.
 * @param {RunLine | undefined} run
 */
function baseText(run) {
  const id = run ? baseRunId(run) : "";
  const base = runById(id);
  return id ? `its base, after “${base ? nameOf(base) : id}”` : "base model";
}

/** A question with its two answers, which grow while they are being written. */
class AnswerRow {
  /**
   * @param {string} prompt
   * @param {string} name of the run
   * @param {string} base what the run began with
   */
  constructor(prompt, name, base) {
    /** @type {Record<"base" | "trained", HTMLElement>} */
    this.texts = { base: element("p"), trained: element("p") };
    this.chances = element("p", { class: "tf-small", hidden: true });
    this.source = element("p", { class: "tf-small", hidden: true });
    this.written = element("p", { class: "tf-small", style: "white-space: pre-wrap", hidden: true });
    this.node = element("article", { class: "tf-answer-row", "aria-busy": "true" }, [
      element("p", { class: "tf-prompt" }, prompt),
      element("div", { class: "tf-answer" }, [element("h3", {}, base), this.texts.base]),
      element("div", { class: "tf-answer" }, [
        element("h3", {}, `after “${name}”`),
        this.texts.trained,
        this.chances,
        this.source,
        this.written,
      ]),
    ]);
  }

  /**
   * @param {"base" | "trained"} side
   * @param {string} text
   */
  add(side, text) {
    this.texts[side].append(text);
  }

  /** Empties the answers: they are written anew. */
  clear() {
    for (const text of Object.values(this.texts)) text.textContent = "";
  }

  /** Ends the answers where they are: no more will come. */
  breakOff() {
    for (const text of Object.values(this.texts)) text.append(" (not answered to its end)");
    this.node.removeAttribute("aria-busy");
  }

  /**
   * Sets the answers as they are in the end.
   * @param {Answers} answers
   * @param {number} index of this row's prompt
   */
  end({ base, trained, chances, prompts, recovered_from: source }, index) {
    this.source.textContent = sourceText(source);
    this.source.hidden = !source;
    // passages, examples: what the method wrote around the prompt
    this.written.textContent = prompts ? `asked as: ${prompts[index]}` : "";
    this.written.hidden = !prompts;
    this.texts.base.textContent = base?.[index]?.trim() || "(an empty answer)";
    this.texts.trained.textContent = trained?.[index]?.trim() || "(an empty answer)";
    const classes = Object.entries(chances?.[index] ?? {}).sort(([, one], [, two]) => two - one);
    const shown = classes.slice(0, SHOWN_CLASSES).map(([label, chance]) => `${label} ${(100 * chance).toFixed(1)} %`);
    this.chances.textContent = shown.join(", ");
    this.chances.hidden = shown.length === 0;
    this.node.removeAttribute("aria-busy");
  }
}
