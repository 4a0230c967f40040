// Memory besides the bar: its charts, what to change, the same on several devices, and waiting for the exact table.

import { bytes, element } from "./dom.js";
import { plural } from "./notices.js";
import { isRefused, sendJson } from "./requests.js";
import { otherNames, sizePanel, stepPanel } from "./memory_charts.js";

/** The route that answers for the device that was chosen; for that of the settings where none was. */
function memoryPath(device) {
  return `fork/memory${device ? `?device=${encodeURIComponent(device)}` : ""}`;
}

// -- what to change ---------------------------------------------------------------------------------------------------
function merged(settings, change) {
  const found = { ...settings };
  for (const [name, value] of Object.entries(change)) {
    found[name] = ["data", "eval", "sample", "optimizer"].includes(name) ? { ...settings[name], ...value } : value;
  }
  return found;
}

function nameOf(device) {
  return device.name === "This machine" ? "this machine" : device.name;
}

function fixList(outlook, apply) {
  const rows = outlook.fixes.map((fix) =>
    element("li", {}, [
      element(
        "button",
        { type: "button", class: "tf-button", onclick: () => apply(merged(outlook.settings, fix.settings)) },
        "Apply",
      ),
      element("span", {}, [
        element("strong", {}, `−${bytes(fix.saved_bytes || fix.update_saved_bytes)}`),
        fix.saved_bytes ? "" : " in an update; what the run does between updates stays higher",
        fix.time_percent ? ` · ${fix.time_percent > 0 ? "+" : "−"}${Math.abs(fix.time_percent)} % time` : "",
        ` · ${fix.cost}`,
      ]),
    ]),
  );
  const helpless = !outlook.fits && rows.length && !outlook.fixes.some((fix) => fix.fits);
  return [
    element("p", { class: "tf-small" }, atOnce(outlook)),
    helpless ? element("p", { class: "tf-small" }, "None of these is enough alone:") : null,
    element("ul", { class: "tf-fixes" }, rows),
  ];
}

/** How many rows at once fit. Where nothing is trained there is no effective batch: a micro-batch only cuts the evaluation. */
function atOnce(outlook) {
  const { largest_micro_batch: most, effective_batch: effective, reaches, all_rows: all } = outlook,
    name = nameOf(outlook.device);
  if (most === null) return `Not even one row at a time surely fits ${name}.`;
  if (effective === null)
    return all
      ? `${all === 1 ? "The one held-out row fits" : `All ${all} held-out rows at once fit`} ${name}.`
      : `With a micro-batch of at most ${plural(most, "row")} the run surely fits ${name}.`;
  if (all) return `${all === 1 ? "The one row" : `All ${all} rows at once`} would fit ${name}.`;
  if (most >= effective) return `The whole effective batch of ${plural(effective, "row")} fits ${name} at once.`;
  return `At most ${plural(most, "row")} at once surely ${most === 1 ? "fits" : "fit"} ${name}; ${reaches.rows} × ${reaches.steps} reaches the effective batch of ${effective}.`;
}

// -- the same on several devices --------------------------------------------------------------------------------------
function severalTable(outlook) {
  if (!outlook.several.length) return [];
  const ways = [...new Set(outlook.several.map((one) => one.way))];
  const counts = [...new Set(outlook.several.map((one) => one.devices))];
  const cell = (way, count) => {
    const one = outlook.several.find((it) => it.way === way && it.devices === count);
    return element(
      "td",
      { title: `${bytes(one.low_bytes)} to ${bytes(one.high_bytes)}` },
      `${bytes(one.process_bytes)}, ${one.fits ? "fits" : "may not fit"}`,
    );
  };
  const head = element("tr", {}, [
    element("th", { scope: "col" }, "devices"),
    ...ways.map((way) => element("th", { scope: "col" }, `${way}, on each`)),
  ]);
  const rows = counts.map((count) =>
    element("tr", {}, [element("th", { scope: "row" }, count), ...ways.map((way) => cell(way, count))]),
  );
  const said = `What each of several devices like ${nameOf(outlook.device)} would take, by arithmetic, with a micro-batch on each and an effective batch that grows with their number. Training here uses one.`;
  return [
    element("h3", { class: "tf-mem-head" }, "On several devices"),
    element("p", { class: "tf-small" }, said),
    element("table", { class: "tf-several", "aria-label": "Several devices" }, [
      element("thead", {}, head),
      element("tbody", {}, rows),
    ]),
  ];
}

/** What is said where the numbers are not those of an exact table, and the bar's note has not told why. */
function stateOf(outlook) {
  if (outlook.pending && outlook.kind !== "traced")
    return "The exact table is being traced; these are from a formula until it is there.";
  return outlook.kind === "traced" || outlook.why_approximate
    ? ""
    : "There is no exact table for these settings: these stay approximate, with a wider band.";
}

/** "More about memory": closed it costs nothing; its numbers are asked for when it is opened, and while it is open at each
 * change of the form. `show` takes the settings and device to ask for. */
export function memoryDetails(apply) {
  const body = element("div", { class: "tf-mem" });
  const node = element("details", { class: "tf-mem-details" }, [element("summary", {}, "More about memory"), body]);
  let asked = null,
    drawn = null; // the settings and device that the form has now, and those of the last question
  const fill = async () => {
    if (!node.open || !asked || asked === drawn) return;
    const question = (drawn = asked);
    let now;
    try {
      const answer = await sendJson(memoryPath(question.device), question.settings);
      now = isRefused(answer) ? null : await answer.json();
    } catch {
      if (drawn === question) drawn = null; // the server is away: opening it again asks again
      return;
    }
    if (question !== asked) return; // the form has changed meanwhile
    if (now) draw(now);
    else body.replaceChildren(); // never the numbers of other settings
  };
  const draw = (now) => {
    const panels = [
      now.step.length ? stepPanel(now.step) : null,
      sizePanel("Against rows at once", now.rows, now.device, "Rows in one micro-batch, the effective batch as set"),
      sizePanel("Against the longest row", now.lengths, now.device, "Tokens"),
    ];
    const state = stateOf(now),
      waiting = state ? element("p", { class: "tf-small", role: "status" }, state) : null;
    body.replaceChildren(
      ...[
        waiting,
        element("div", { class: "tf-mem-panels" }, panels.filter(Boolean)),
        otherNames(now.rows.curves, body),
        ...fixList(now, apply),
        ...severalTable(now),
      ].filter(Boolean),
    );
  };
  node.addEventListener("toggle", fill);
  return {
    node,
    show(outlook, device) {
      asked = { settings: outlook.settings, device };
      fill();
    },
  };
}

const ASK_AGAIN = 1000;

/** Asks until the table is there, or cannot be made, for the device that was chosen; then calls `done` once. */
export function awaitTable(outlook, device, done) {
  let stopped = false;
  const ask = async () => {
    let over = false;
    try {
      const answer = await sendJson(memoryPath(device), outlook.settings);
      over = isRefused(answer) || !(await answer.json()).pending;
    } catch {
      /* the server is away: the next try may find it */
    }
    if (stopped) return;
    if (over) done();
    else
      setTimeout(() => {
        if (!stopped) ask();
      }, ASK_AGAIN);
  };
  const first = setTimeout(ask, ASK_AGAIN);
  return () => {
    stopped = true;
    clearTimeout(first);
  };
}
