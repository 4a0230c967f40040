// Memory besides the bar: through one step, against rows and length, what to change, and how good estimates have been.

import { bytes, element } from "./dom.js";
import { onChange } from "./live.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 300, HIGH = 120, LEFT = 52, RIGHT = 8, TOP = 8, BOTTOM = 20;

function draw(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function canvas(label) {
  return draw("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": label, class: "tf-mini" });
}

function panel(title, picture, said) {
  return element("figure", { class: "tf-mem-panel" }, [element("figcaption", {}, title), picture,
    said ? element("p", { class: "tf-small" }, said) : null]);
}

function path(points) { return points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join(""); }

function heightOf(top) { return (count) => HIGH - BOTTOM - ((HIGH - TOP - BOTTOM) * count) / top; }

function scale(svg, y, top) {
  for (const count of [0, top / 2, top]) {
    svg.append(draw("line", { x1: LEFT, x2: WIDE - RIGHT, y1: y(count), y2: y(count), class: "tf-mini-grid" }));
    svg.append(draw("text", { x: LEFT - 4, y: y(count) + 3, class: "tf-mini-text", "text-anchor": "end" }, bytes(count)));
  }
}

// -- memory through one step, the peak marked and named --------------------------------------------------------------
function stepPanel(points) {
  const top = Math.max(...points.map((point) => point.bytes)) * 1.15;
  const svg = canvas("Memory through one update"), y = heightOf(top);
  const x = (index) => LEFT + ((WIDE - LEFT - RIGHT) * index) / Math.max(1, points.length - 1);
  scale(svg, y, top);
  svg.append(draw("path", { d: path(points.map((point, index) => [x(index), y(point.bytes)])), class: "tf-mini-line" }));
  const peak = points.reduce((best, point, index) => (point.bytes > points[best].bytes ? index : best), 0);
  svg.append(draw("circle", { cx: x(peak), cy: y(points[peak].bytes), r: 4, class: "tf-mini-dot" }));
  const ends = [["forward", points.findIndex((point) => point.place.startsWith("forward"))],
    ["backward", points.findIndex((point) => point.place.startsWith("backward"))],
    ["update", points.findIndex((point) => point.place === "optimizer step")]];
  for (const [name, index] of ends) {
    if (index < 0) continue;
    const last = name === "update";
    svg.append(draw("text", { x: last ? WIDE - RIGHT : x(index), y: HIGH - 5, class: "tf-mini-text", "text-anchor": last ? "end" : "start" }, name));
  }
  for (const [index, point] of points.entries()) {
    const spot = draw("rect", { x: x(index) - 3, y: TOP, width: 6, height: HIGH - TOP - BOTTOM, fill: "transparent" });
    spot.append(draw("title", {}, `${point.place}: ${bytes(point.bytes)}`));
    svg.append(spot);
  }
  return panel("Through one update", svg, `Highest at: ${points[peak].place}, ${bytes(points[peak].bytes)} of tensors.`);
}

// -- memory against a size: this method, the others faintly, the device's limit, the chosen point ---------------------
function sizePanel(title, chart, device, unit) {
  // far below the device the process would be a flat line: there the tensors alone say more
  const near = device.bytes < Math.max(...chart.curves[0].process) * 3;
  const of = (curve) => (near ? curve.process : curve.tensors);
  const own = of(chart.curves[0]);
  const most = Math.max(...own);
  const top = (near ? Math.max(most, device.bytes) : most) * 1.1;
  const svg = canvas(`${title} on ${device.name}`), y = heightOf(top);
  const [first, last] = [chart.values[0], chart.values.at(-1)];
  const x = (value) => LEFT + ((WIDE - LEFT - RIGHT) * Math.log(value / first)) / Math.log(last / first || 2);
  scale(svg, y, top);
  const lines = chart.curves.map((curve, index) => ({ curve, index })).reverse();
  for (const { curve, index } of lines) {
    const spots = chart.values.map((value, at) => [x(value), Math.max(TOP, y(of(curve)[at]))]);
    const line = draw("path", { d: path(spots), class: index ? "tf-mini-other" : "tf-mini-line" });
    line.append(draw("title", {}, `${curve.title}: ${bytes(of(curve)[0])} to ${bytes(of(curve).at(-1))}`));
    svg.append(line);
  }
  if (near) {
    svg.append(draw("line", { x1: LEFT, x2: WIDE - RIGHT, y1: y(device.bytes), y2: y(device.bytes), class: "tf-mini-limit" }));
  }
  const here = Math.min(last, Math.max(first, chart.at));
  svg.append(draw("circle", { cx: x(here), cy: y(between(chart.values, own, here)), r: 4, class: "tf-mini-dot" }));
  for (const value of new Set([first, here, last])) {
    if (value !== here && Math.abs(x(value) - x(here)) < 24) continue;
    svg.append(draw("text", { x: x(value), y: HIGH - 5, class: "tf-mini-text", "text-anchor": value === last ? "end" : "middle" }, value));
  }
  const others = chart.curves.slice(1).map((curve) => curve.title);
  return panel(`${title}, ${near ? "whole process" : "tensors"}`, svg,
    `${near ? `Red: ${device.name}, ${bytes(device.bytes)}.` : `${device.name} has ${bytes(device.bytes)}, far above.`}` +
    (others.length ? ` Faint: ${others.join(", ")}.` : "") + ` ${unit}.`);
}

function between(values, counts, at) {
  const above = values.findIndex((value) => value >= at);
  if (above <= 0) return counts[Math.max(0, above)];
  const share = (at - values[above - 1]) / (values[above] - values[above - 1]);
  return counts[above - 1] + share * (counts[above] - counts[above - 1]);
}

// -- what to change ---------------------------------------------------------------------------------------------------
function merged(settings, change) {
  const found = { ...settings };
  for (const [name, value] of Object.entries(change)) {
    found[name] = ["data", "eval", "sample"].includes(name) ? { ...settings[name], ...value } : value;
  }
  return found;
}

function nameOf(device) { return device.name === "This machine" ? "this machine" : device.name; }

function fixList(outlook, apply) {
  const rows = outlook.fixes.map((fix) => element("li", {}, [
    element("button", { type: "button", class: "tf-button", onclick: () => apply(merged(outlook.settings, fix.settings)) }, "Apply"),
    element("span", {}, [element("strong", {}, `−${bytes(fix.saved_bytes || fix.update_saved_bytes)}`),
      fix.saved_bytes ? "" : " in an update; what the run does between updates stays higher",
      fix.time_percent ? ` · ${fix.time_percent > 0 ? "+" : "−"}${Math.abs(fix.time_percent)} % time` : "",
      ` · ${fix.cost}`])]));
  const helpless = !outlook.fits && rows.length && !outlook.fixes.some((fix) => fix.fits);
  return [element("p", { class: "tf-small" }, atOnce(outlook)),
    helpless ? element("p", { class: "tf-small" }, "None of these is enough alone:") : null,
    element("ul", { class: "tf-fixes" }, rows)];
}

/** How many rows at once fit. Where nothing is trained there is no effective batch: a micro-batch only cuts the evaluation. */
function atOnce(outlook) {
  const { largest_micro_batch: most, effective_batch: effective, reaches, all_rows: all } = outlook, name = nameOf(outlook.device);
  if (most === null) return `Not even one row at a time surely fits ${name}.`;
  if (effective === null) return all ? `All ${all} held-out rows at once fit ${name}.` : `With a micro-batch of at most ${most} rows the run surely fits ${name}.`;
  if (all) return `All ${all} rows at once would fit ${name}.`;
  if (most >= effective) return `The whole effective batch of ${effective} rows fits ${name} at once.`;
  return `At most ${most} rows at once surely fit ${name}; ${reaches.rows} × ${reaches.steps} reaches the effective batch of ${effective}.`;
}

// -- the same on several devices --------------------------------------------------------------------------------------
function severalTable(outlook) {
  if (!outlook.several.length) return [];
  const ways = [...new Set(outlook.several.map((one) => one.way))];
  const counts = [...new Set(outlook.several.map((one) => one.devices))];
  const cell = (way, count) => {
    const one = outlook.several.find((it) => it.way === way && it.devices === count);
    return element("td", { title: `${bytes(one.low_bytes)} to ${bytes(one.high_bytes)}` },
      `${bytes(one.process_bytes)}, ${one.fits ? "fits" : "may not fit"}`);
  };
  const head = element("tr", {}, [element("th", { scope: "col" }, "devices"), ...ways.map((way) => element("th", { scope: "col" }, way))]);
  const rows = counts.map((count) => element("tr", {}, [element("th", { scope: "row" }, count), ...ways.map((way) => cell(way, count))]));
  const said = `What each of several devices like ${nameOf(outlook.device)} would take, by arithmetic, with a micro-batch on each and an effective batch that grows with their number. Training here uses one.`;
  return [element("p", { class: "tf-small" }, said),
    element("table", { class: "tf-several", "aria-label": "Several devices" }, [element("thead", {}, head), element("tbody", {}, rows)])];
}

export function memoryDetails(apply) {
  const body = element("div", { class: "tf-mem" });
  const node = element("details", { class: "tf-mem-details" }, [element("summary", {}, "More about memory"), body]);
  let now = null;
  const fill = () => {
    if (!node.open || !now) return;
    const panels = [now.step.length ? stepPanel(now.step) : null,
      sizePanel("Against rows at once", now.rows, now.device, "Rows in one micro-batch"),
      sizePanel("Against the longest row", now.lengths, now.device, "Tokens")];
    const waiting = now.pending ? element("p", { class: "tf-small", role: "status" }, "The exact table is being traced; these are from a formula until it is there.") : null;
    body.replaceChildren(...[waiting, element("div", { class: "tf-mem-panels" }, panels.filter(Boolean)), ...fixList(now, apply), ...severalTable(now)].filter(Boolean));
  };
  node.addEventListener("toggle", fill);
  return { node, show(outlook) { now = outlook; fill(); } };
}

/** Asks until the table that is being made is there, then calls `done` once. */
export function awaitTable(outlook, done) {
  let left = 40;
  const timer = setInterval(async () => {
    left -= 1;
    if (left < 0) { clearInterval(timer); return; }
    try {
      const answer = await fetch("fork/memory", { method: "POST", body: JSON.stringify(outlook.settings) });
      if (!answer.ok || (await answer.json()).pending) return;
      clearInterval(timer);
      done();
    } catch { /* the server is away: the next try may find it */ }
  }, 2000);
  return () => clearInterval(timer);
}

// -- how good estimates have been on this machine ---------------------------------------------------------------------
export function errorOf(run) {
  const expected = run.estimate?.total_bytes, measured = run.peak_bytes;
  return expected && measured ? 100 * (expected / measured - 1) : null;
}

export function calibration() {
  const body = element("div");
  const node = element("details", { class: "tf-mem-details" }, [element("summary", {}, "Estimates against measurements"), body]);
  onChange((state) => {
    const known = state.runs.filter((run) => errorOf(run) !== null);
    node.hidden = known.length === 0;
    const key = known.map((run) => `${run.run_id}:${run.peak_bytes}`).join();
    if (!known.length || body.dataset.key === key) return;
    body.dataset.key = key;
    const errors = known.map((run) => Math.abs(errorOf(run))).sort((a, b) => a - b);
    const middle = errors[Math.floor((errors.length - 1) / 2)];
    const top = Math.max(...known.flatMap((run) => [run.peak_bytes, run.estimate.total_bytes])) * 1.1;
    const svg = canvas("Measured against estimated memory of each run"), y = heightOf(top);
    const x = (count) => LEFT + ((WIDE - LEFT - RIGHT) * count) / top;
    scale(svg, y, top);
    svg.append(draw("line", { x1: x(0), y1: y(0), x2: x(top), y2: y(top), class: "tf-mini-grid" }));
    for (const run of known) {
      const dot = draw("circle", { cx: x(run.estimate.total_bytes), cy: y(run.peak_bytes), r: 3.5, class: run.estimate.kind === "traced" ? "tf-mini-dot" : "tf-mini-ring" });
      dot.append(draw("title", {}, `${run.name || run.run_id}: estimated ${bytes(run.estimate.total_bytes)}, measured ${bytes(run.peak_bytes)}`));
      svg.append(dot);
    }
    svg.append(draw("text", { x: WIDE - RIGHT, y: HIGH - 5, class: "tf-mini-text", "text-anchor": "end" }, "estimated"));
    body.replaceChildren(panel("Measured (up) against estimated (right)", svg,
      `${known.length} ${known.length === 1 ? "run" : "runs"}: error ${middle.toFixed(1)} % in the middle, ${errors.at(-1).toFixed(1)} % at most. ` +
      "The estimate takes the widest micro-batch the data can give; a short run may never meet it. Rings are estimates by formula."));
  });
  return node;
}
