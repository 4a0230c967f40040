// @ts-check
// How good estimates have been on this machine: each measured run against what was expected of it.

import { element, svgElement } from "./dom.js";
import { bytes, plural } from "./format.js";
import { HEIGHT, LEFT, RIGHT, WIDTH, axisLines, canvas, panel, verticalScale } from "./memory_charts.js";
import { onChange } from "./polling.js";
import { estimateError, nameOf } from "./run_text.js";

/** @typedef {import("./shapes").RunLine} RunLine */

export function calibration() {
  const body = element("div");
  const details = element("details", { class: "tf-mem-details" }, [
    element("summary", {}, "Estimates against measurements"),
    body,
  ]);
  onChange(({ runs }) => {
    const measured = runs.filter((run) => estimateError(run) !== null);
    details.hidden = measured.length === 0;
    const key = measured.map((run) => `${run.run_id}:${run.peak_bytes}`).join();
    if (!measured.length || body.dataset.key === key) return;
    body.dataset.key = key;
    body.replaceChildren(panel("Measured (up) against estimated (right)", chart(measured), errorText(measured)));
  });
  return details;
}

/**
 * Both sizes of a run that has them.
 * @param {RunLine} run
 */
function sizesOf(run) {
  return { expected: Number(run.estimate?.total_bytes), measured: Number(run.peak_bytes) };
}

/** @param {RunLine[]} runs */
function chart(runs) {
  const top = Math.max(...runs.map(sizesOf).flatMap(({ expected, measured }) => [expected, measured])) * 1.1;
  const svg = canvas("Measured against estimated memory of each run");
  const y = verticalScale(top);
  const x = (/** @type {number} */ size) => LEFT + ((WIDTH - LEFT - RIGHT) * size) / top;
  axisLines(svg, y, top);
  svg.append(svgElement("line", { x1: x(0), y1: y(0), x2: x(top), y2: y(top), class: "tf-mini-grid" }));
  for (const run of runs) {
    const { expected, measured } = sizesOf(run);
    const mark = run.estimate?.kind === "traced" ? "tf-mini-dot" : "tf-mini-ring";
    const dot = svgElement("circle", { cx: x(expected), cy: y(measured), r: 3.5, class: mark });
    const text = `${nameOf(run)}: estimated ${bytes(expected)}, measured ${bytes(measured)}`;
    dot.append(svgElement("title", {}, text));
    svg.append(dot);
  }
  for (const [share, anchor] of /** @type {[number, string][]} */ ([
    [0, "start"],
    [0.5, "middle"],
    [1, "end"],
  ])) {
    const attributes = { x: x(top * share), y: HEIGHT - 5, class: "tf-mini-text", "text-anchor": anchor };
    svg.append(svgElement("text", attributes, bytes(top * share)));
  }
  return svg;
}

/**
 * The median and the largest error, in percent of the measured peak.
 * @param {RunLine[]} runs
 */
export function errorText(runs) {
  const errors = runs.map((run) => Math.abs(Number(estimateError(run)))).sort((one, two) => one - two);
  const half = errors.length >> 1;
  const median = (errors[half] + errors[errors.length - 1 - half]) / 2;
  const most = errors[errors.length - 1];
  return (
    `${plural(runs.length, "run")}: error ${median.toFixed(1)} % in the middle, ${most.toFixed(1)} % at most. ` +
    "The estimate takes the widest micro-batch the data can give; a short run may never meet it. " +
    "Rings are estimates by formula."
  );
}
