// @ts-check
// "Your data": what a file was recognised as, its rows, and the tokens they become, before Start. Asks
// POST /fork/data/preview when a setting that matters has changed; what is pressed here goes into the form.

import { columnsSection, isUnread, templateSection } from "./data_columns.js";
import { factsSection } from "./data_facts.js";
import { lengthsFigure } from "./data_lengths.js";
import { badRowsSection, rowsSection } from "./data_rows.js";
import { mountUpload } from "./data_upload.js";
import { element, sleep } from "./dom.js";
import { count, plural } from "./format.js";
import { DOWNLOADED } from "./hub_data.js";
import { noticeList } from "./notices.js";
import { post, RefusedError } from "./requests.js";
import { sentence } from "./setting_names.js";

/** @typedef {import("./shapes").Lengths} Lengths */
/** @typedef {import("./shapes").Problem} Problem */
/** @typedef {import("./shapes").Reading} Reading */
/**
 * The server's answer; `stale` where it is that of earlier settings, `reading` while all rows are being read.
 * @typedef {import("./shapes").DataPreview & { stale?: boolean, reading?: Reading }} DataPreview
 */
/** @typedef {(values: Record<string, any>) => void} SetValues puts values into the form, by path */

const OPEN = "tuning-fork-data-open";
/** Milliseconds: after the last change before the server is asked, and between questions for the facts of all rows. */
const DELAY = 250;
const ASK_AGAIN = 500;

/**
 * Like `post`, but a refusal is an answer with problems, to be drawn like any other.
 * @param {string} path
 * @param {any} settings
 * @param {AbortSignal} signal
 */
async function askAboutData(path, settings, signal) {
  try {
    return await post(path, settings, { signal });
  } catch (error) {
    if (error instanceof RefusedError && error.answer) return error.answer;
    throw error;
  }
}

/**
 * The settings that say what rows become.
 * @param {any} settings
 */
function usedSettings(settings) {
  const { task, model, revision, seed, data, micro_batch_size: rows, gradient_accumulation_steps: steps } = settings;
  return JSON.stringify([task, model, revision, seed, data, rows, steps]);
}

/**
 * @param {HTMLElement} root
 * @param {{ value?: { settings: any } }} props
 * @param {(name: string, onNewValue: () => void) => void} watch
 * @param {(name: string, detail: any) => void} trigger
 */
export function mountData(root, props, watch, trigger) {
  const summary = element("summary", {}, "Your data");
  const body = element("div", { class: "tf-data-body" });
  const details = element("details", { class: "tf-card tf-fold tf-data", id: "tf-your-data" }, [summary, body]);
  root.replaceChildren(details);
  details.open = localStorage.getItem(OPEN) === "yes";
  details.addEventListener("toggle", () => localStorage.setItem(OPEN, details.open ? "yes" : "no"));
  /** @type {SetValues} */
  const set = (values) => trigger("set", { values });
  mountUpload(details, (path) => {
    details.open = true;
    set({ "data.source": path, "data.columns": {} });
  });

  let asked = "";
  /** @type {number | undefined} */
  let timer;
  /** @type {AbortController | null} */
  let request = null;
  /** The last preview that had rows, and of which rows. @type {{ key: string, preview: DataPreview } | null} */
  let last = null;
  /** The rows for which the section opened by itself. @type {string | null} */
  let openedFor = null;

  function onSettings() {
    const settings = props.value?.settings;
    if (!settings) return;
    const used = usedSettings(settings);
    if (used === asked) return;
    asked = used;
    clearTimeout(timer);
    timer = setTimeout(() => load(settings), DELAY);
  }
  watch("value", onSettings);
  document.addEventListener(DOWNLOADED, () => {
    asked = ""; // the same settings now have rows
    onSettings();
  });
  onSettings();

  /** @param {any} settings */
  async function load(settings) {
    request?.abort();
    const own = new AbortController();
    request = own;
    details.setAttribute("aria-busy", "true");
    try {
      const preview = await askAboutData("fork/data/preview", settings, own.signal);
      if (own !== request) return;
      draw(withLastRows(preview, settings), settings);
      details.removeAttribute("aria-busy");
      if (preview.whole === false) await follow(preview, settings, own);
    } catch (error) {
      if (!(error instanceof DOMException && error.name === "AbortError")) asked = ""; // the next change asks again
    }
    if (own === request) details.removeAttribute("aria-busy");
  }

  /**
   * The first rows are shown; what only all rows tell comes when they are read, and until then the progress of that.
   * @param {DataPreview} preview
   * @param {any} settings
   * @param {AbortController} own
   */
  async function follow(preview, settings, own) {
    while (own === request) {
      const answer = await askAboutData("fork/data/facts", settings, own.signal);
      if (own !== request) return;
      if (!answer.reading) {
        draw(withFacts(preview, answer), settings);
        return;
      }
      drawTitle({ ...preview, reading: answer.reading });
      const before = body.querySelector(".tf-reading"); // the rest stays as it is: a person may be at it
      if (before) before.replaceWith(readingProgress(answer.reading));
      else body.prepend(readingProgress(answer.reading));
      await sleep(ASK_AGAIN);
    }
  }

  /**
   * A setting that cannot be read does not take the rows away: the last ones stay under what is wrong.
   * @param {DataPreview} preview
   * @param {any} settings
   * @returns {DataPreview}
   */
  function withLastRows(preview, settings) {
    const key = JSON.stringify([settings.data?.source, settings.data?.subset, settings.data?.revision]);
    if (preview.columns) {
      last = { key, preview };
      return preview;
    }
    const isWithoutSource = preview.problems?.some(({ field }) => field === "data.source");
    if (last?.key !== key || isWithoutSource) return preview;
    return { ...last.preview, problems: preview.problems, stale: true };
  }

  /** @param {DataPreview} preview */
  function drawTitle(preview) {
    summary.replaceChildren(element("span", { class: "tf-fold-title" }, "Your data"), ...chips(preview));
  }

  /**
   * @param {DataPreview} preview
   * @param {any} settings
   */
  function draw(preview, settings) {
    const active = document.activeElement;
    const focused = active instanceof HTMLElement ? active.dataset.key : undefined;
    drawTitle(preview);
    const source = settings.data?.source;
    if (isUnread(preview) && openedFor !== source && !details.open) {
      // more than one reading is possible: a person has to choose, and is shown where
      openedFor = source;
      details.open = true;
    }
    body.classList.toggle("tf-earlier", Boolean(preview.stale));
    body.replaceChildren(
      ...problemNodes(preview),
      ...noticeNodes(preview),
      ...(preview.columns ? [columnsSection(preview, settings, set), templateSection(preview, settings, set)] : []),
      ...(preview.bad?.count ? [badRowsSection(preview, set)] : []),
      ...(preview.rows?.length ? [rowsSection(preview)] : []),
      ...(preview.lengths?.rows ? [lengthsFigure(/** @type {Lengths} */ (preview.lengths))] : []),
      ...factsSection(preview),
    );
    const node = focused && body.querySelector(`[data-key="${CSS.escape(focused)}"]`);
    if (node instanceof HTMLElement) node.focus({ preventScroll: true });
  }
}

/**
 * The preview of the first rows with what all rows tell.
 * @param {DataPreview} preview
 * @param {{ facts?: Partial<DataPreview>, problems?: Problem[] }} answer
 * @returns {DataPreview}
 */
export function withFacts(preview, { facts, problems = [] }) {
  const bad = facts?.bad?.whole ? facts.bad : preview.bad; // else the same rows were looked at
  const before = preview.problems.map(({ message }) => message);
  const more = problems.filter(({ message }) => !before.includes(message));
  return { ...preview, ...facts, bad, problems: [...preview.problems, ...more] };
}

/** @param {DataPreview} preview */
function chips(preview) {
  return chipTexts(preview).map(([text, verdict]) =>
    element("span", { class: "tf-chip", "data-verdict": verdict ?? null }, text),
  );
}

/**
 * What the closed section says of the data, each with its verdict.
 * @param {DataPreview} preview
 * @returns {[text: string, verdict?: "tight" | "over"][]}
 */
export function chipTexts(preview) {
  if (!preview.columns) return [["cannot be read", "over"]];
  /** @type {[string, ("tight" | "over")?][]} */
  const texts = [];
  const { shape, train_rows: train, bad, lengths, reading, notices } = preview;
  if (shape) texts.push([shape]);
  if (train) {
    const head = preview.whole === false && !preview.counted ? " of its head" : "";
    texts.push([`${count(train)} + ${plural(preview.eval_rows ?? 0, "row")}${head}`]);
  }
  if (bad?.count) texts.push([plural(bad.count, "bad row"), bad.choice === "skip" ? "tight" : "over"]);
  if (lengths?.cut_rows) texts.push([`${count(lengths.cut_rows)} cut`, "tight"]);
  if (reading) {
    const percent = reading.total ? ` ${Math.floor((100 * reading.done) / reading.total)} %` : "";
    texts.push([`reading${percent}`, "tight"]);
  }
  if (notices?.length) texts.push([`${plural(notices.length, "notice")} on the rows`, "tight"]);
  if (isUnread(preview)) texts.push(["needs a choice", "over"]);
  else if (rowProblems(preview).length) texts.push(["needs a change", "over"]);
  return texts;
}

/**
 * The problems that the rows themselves have: not those of the base model.
 * @param {DataPreview} preview
 */
function rowProblems({ problems }) {
  return (problems ?? []).filter(({ field }) => field !== "model" && field !== "revision");
}

/** @param {DataPreview} preview */
function problemNodes(preview) {
  const own = rowProblems(preview);
  const others = (preview.problems ?? []).filter((problem) => !own.includes(problem));
  const nodes = own.map((problem) => element("p", { class: "tf-problem" }, sentence(problem)));
  const alert = nodes.length ? [element("div", { role: "alert" }, nodes)] : [];
  if (!others.length || preview.tokens) return alert;
  // what is wrong beside the rows is said where it is; here, what of the rows it hides
  const text = `The tokens are not shown. ${others.map(sentence).join(" ")}`;
  return [...alert, element("p", { class: "tf-small" }, text)];
}

/** @param {DataPreview} preview */
function noticeNodes({ notices }) {
  if (!notices?.length) return [];
  return [
    element("section", { "aria-label": "Notices on these rows" }, [
      element("h3", {}, "Notices on these rows"),
      noticeList(notices),
    ]),
  ];
}

/**
 * The progress of reading all rows, while the first ones are shown already.
 * @param {Reading} reading
 */
function readingProgress({ words, done, total }) {
  return element("div", { class: "tf-upload tf-reading" }, [
    element("span", {}, `These are the first rows. ${words}; what all rows say follows.`),
    element("progress", { max: Math.max(1, total ?? 0), value: done, "aria-label": "Reading all rows" }),
  ]);
}
