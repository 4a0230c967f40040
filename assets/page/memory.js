// @ts-check
// Memory besides the bar: its charts, what to change, the same on several devices, and waiting for the exact table.

import { button, element } from "./dom.js";
import { bytes } from "./format.js";
import { otherNames, sizePanel, stepPanel } from "./memory_charts.js";
import { deviceName, rowsThatFit, tableState, withChange } from "./memory_text.js";
import { post, RefusedError } from "./requests.js";

/** @typedef {import("./shapes").Fix} Fix */
/** @typedef {import("./shapes").MemoryQuestion} MemoryQuestion */
/** @typedef {import("./shapes").DeviceShare} DeviceShare */
/** @typedef {import("./shapes").MemoryAnswer} MemoryAnswer */

const ASK_AGAIN = 1000; // milliseconds

/**
 * Asks for the figures of these settings on the device that was chosen, or on that of the settings where none was; null
 * where the settings are refused. Raises TypeError where the server is away.
 * @param {any} settings
 * @param {string | null} device
 * @returns {Promise<MemoryAnswer | null>}
 */
async function askWhatIf(settings, device) {
  try {
    return await post(`fork/memory${device ? `?device=${encodeURIComponent(device)}` : ""}`, settings);
  } catch (error) {
    if (error instanceof RefusedError) return null;
    throw error;
  }
}

/**
 * @param {MemoryAnswer} whatIf
 * @param {(settings: any) => void} apply
 */
function fixList(whatIf, apply) {
  const rows = whatIf.fixes.map((fix) =>
    element("li", {}, [
      button("Apply", () => apply(withChange(whatIf.settings, fix.settings))),
      element("span", {}, fixText(fix)),
    ]),
  );
  const noneIsEnough = !whatIf.fits && rows.length > 0 && !whatIf.fixes.some((fix) => fix.fits);
  return [
    element("p", { class: "tf-small" }, rowsThatFit(whatIf)),
    noneIsEnough ? element("p", { class: "tf-small" }, "None of these is enough alone:") : null,
    element("ul", { class: "tf-fixes" }, rows),
  ];
}

/** @param {Fix} fix */
function fixText(fix) {
  const { saved_bytes: saved, update_saved_bytes: savedInUpdate, time_percent: percent } = fix;
  return [
    element("strong", {}, `−${bytes(saved || savedInUpdate)}`),
    saved ? "" : " in an update; what the run does between updates stays higher",
    percent ? ` · ${percent > 0 ? "+" : "−"}${Math.abs(percent)} % time` : "",
    ` · ${fix.cost}`,
  ];
}

/**
 * What each of several devices would take, a line a number of devices and a column a way to share the work.
 * @param {MemoryAnswer} whatIf
 */
function severalDevices({ several, device }) {
  if (!several.length) return [];
  const ways = [...new Set(several.map(({ way }) => way))];
  const numbers = [...new Set(several.map(({ devices }) => devices))];
  const cell = (/** @type {string} */ way, /** @type {number} */ devices) => {
    const shared = several.find((other) => other.way === way && other.devices === devices);
    return shared ? sharedCell(shared) : element("td");
  };
  const heads = ["devices", ...ways.map((way) => `${way}, on each`)];
  const head = element(
    "tr",
    {},
    heads.map((text) => element("th", { scope: "col" }, text)),
  );
  const rows = numbers.map((devices) =>
    element("tr", {}, [element("th", { scope: "row" }, devices), ...ways.map((way) => cell(way, devices))]),
  );
  const text =
    `What each of several devices like ${deviceName(device)} would take, by arithmetic, with a micro-batch on each ` +
    "and an effective batch that grows with their number. Training here uses one.";
  return [
    element("h3", { class: "tf-mem-head" }, "On several devices"),
    element("p", { class: "tf-small" }, text),
    element("table", { class: "tf-several", "aria-label": "Several devices" }, [
      element("thead", {}, head),
      element("tbody", {}, rows),
    ]),
  ];
}

/** @param {DeviceShare} shared */
function sharedCell(shared) {
  const title = `${bytes(shared.low_bytes)} to ${bytes(shared.high_bytes)}`;
  return element("td", { title }, `${bytes(shared.process_bytes)}, ${shared.fits ? "fits" : "may not fit"}`);
}

/**
 * "More about memory": closed it costs nothing; its numbers are asked for when it is opened, and while it is open at
 * each change of the form. `show` takes the settings and device to ask for.
 * @param {(settings: any) => void} apply puts settings into the form
 */
export function memoryDetails(apply) {
  const body = element("div", { class: "tf-mem" });
  const details = element("details", { class: "tf-mem-details" }, [element("summary", {}, "More about memory"), body]);
  /** @typedef {{ settings: any, device: string | null }} Question */
  let current = /** @type {Question | null} */ (null); // of the form as it is now
  let asked = /** @type {Question | null} */ (null); // what was last asked for

  async function fill() {
    if (!details.open || !current || current === asked) return;
    const question = current;
    asked = question;
    let whatIf;
    try {
      whatIf = await askWhatIf(question.settings, question.device);
    } catch {
      if (asked === question) asked = null; // the server is away: opening it again asks again
      return;
    }
    if (question !== current) return; // the form has changed meanwhile
    if (whatIf) draw(whatIf);
    else body.replaceChildren(); // never the numbers of other settings
  }

  /** @param {MemoryAnswer} whatIf */
  function draw(whatIf) {
    const { step, rows, lengths, device } = whatIf;
    const state = tableState(whatIf);
    const panels = [
      step.length ? stepPanel(step) : null,
      sizePanel("Against rows at once", rows, device, "Rows in one micro-batch, the effective batch as set"),
      sizePanel("Against the longest row", lengths, device, "Tokens"),
    ];
    const parts = [
      state ? element("p", { class: "tf-small", role: "status" }, state) : null,
      element("div", { class: "tf-mem-panels" }, panels),
      otherNames(rows.curves, body),
      ...fixList(whatIf, apply),
      ...severalDevices(whatIf),
    ];
    body.replaceChildren(...parts.filter((part) => part !== null));
  }

  details.addEventListener("toggle", fill);
  return {
    node: details,
    /**
     * @param {MemoryQuestion} question
     * @param {string | null} device
     */
    show(question, device) {
      current = { settings: question.settings, device };
      fill();
    },
  };
}

/**
 * Asks until the exact table is there, or cannot be made, for the device that was chosen; then calls `onDone` once.
 * What it returns ends the asking.
 * @param {MemoryQuestion} question
 * @param {string | null} device
 * @param {() => void} onDone
 */
export function awaitTable(question, device, onDone) {
  let stopped = false;
  let timer = setTimeout(ask, ASK_AGAIN);
  async function ask() {
    let isPending = true;
    try {
      isPending = (await askWhatIf(question.settings, device))?.pending ?? false;
    } catch {
      // the server is away: the next try may find it
    }
    if (stopped) return;
    if (isPending) timer = setTimeout(ask, ASK_AGAIN);
    else onDone();
  }
  return () => {
    stopped = true;
    clearTimeout(timer);
  };
}
