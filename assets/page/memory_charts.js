// @ts-check
// Small charts of memory: through one update, and against rows and length, with the other methods to compare.

import { interpolate } from "./curves.js";
import { element, svgElement } from "./dom.js";
import { bytes } from "./format.js";

/** @typedef {import("./shapes").Curve} Curve */
/** @typedef {import("./shapes").Curves} Curves */
/** @typedef {import("./shapes").DeviceSize} DeviceSize */
/** @typedef {import("./shapes").StepPoint} StepPoint */
/** @typedef {[x: number, y: number]} Point in the picture */

/** The picture in its own units: its size, and the margins around the axes. */
export const WIDTH = 300;
export const HEIGHT = 120;
export const LEFT = 52;
export const RIGHT = 8;
const TOP = 8;
const BOTTOM = 20;

/** Below this share of the device a curve of the whole process would be a flat line. */
const FLAT_BELOW = 1 / 3;
const HEADROOM = 1.1;
const LABEL_WIDTH = 24;

/** @param {string} label */
export function canvas(label) {
  const viewBox = `0 0 ${WIDTH} ${HEIGHT}`;
  return svgElement("svg", { viewBox, role: "img", "aria-label": label, class: "tf-mini" });
}

/**
 * @param {string} title
 * @param {Node} picture
 * @param {string} text
 */
export function panel(title, picture, text) {
  return element("figure", { class: "tf-mem-panel" }, [
    element("figcaption", {}, title),
    picture,
    text ? element("p", { class: "tf-small" }, text) : null,
  ]);
}

/**
 * A path through points, as SVG writes it.
 * @param {Point[]} points
 */
export function pathOf(points) {
  return points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

/**
 * From bytes to the height in the picture, with `top` bytes at its upper end.
 * @param {number} top
 * @returns {(size: number) => number}
 */
export function verticalScale(top) {
  return (size) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * size) / top;
}

/**
 * Three lines with their sizes.
 * @param {SVGElement} svg
 * @param {(size: number) => number} y
 * @param {number} top
 */
export function axisLines(svg, y, top) {
  for (const size of [0, top / 2, top]) {
    svg.append(svgElement("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(size), y2: y(size), class: "tf-mini-grid" }));
    const attributes = { x: LEFT - 4, y: y(size) + 3, class: "tf-mini-text", "text-anchor": "end" };
    svg.append(svgElement("text", attributes, bytes(size)));
  }
}

// -- memory through one update, the peak marked and named -------------------------------------------------------------

/** @param {StepPoint[]} points */
export function stepPanel(points) {
  const top = Math.max(...points.map((point) => point.bytes)) * 1.15;
  const svg = canvas("Memory through one update");
  const y = verticalScale(top);
  const x = (/** @type {number} */ index) => LEFT + ((WIDTH - LEFT - RIGHT) * index) / Math.max(1, points.length - 1);
  axisLines(svg, y, top);
  const line = pathOf(points.map((point, index) => [x(index), y(point.bytes)]));
  svg.append(svgElement("path", { d: line, class: "tf-mini-line" }));
  const peak = points.reduce((best, point, index) => (point.bytes > points[best].bytes ? index : best), 0);
  svg.append(svgElement("circle", { cx: x(peak), cy: y(points[peak].bytes), r: 4, class: "tf-mini-dot" }));
  drawPhases(svg, points, x);
  for (const [index, point] of points.entries()) {
    const height = HEIGHT - TOP - BOTTOM;
    const area = svgElement("rect", { x: x(index) - 3, y: TOP, width: 6, height, fill: "transparent" });
    area.append(svgElement("title", {}, `${point.place}: ${bytes(point.bytes)}`));
    svg.append(area);
  }
  return panel(
    "Through one update",
    svg,
    `Highest at: ${points[peak].place}, ${bytes(points[peak].bytes)} of tensors.`,
  );
}

/**
 * The names of the phases of an update, under where they begin.
 * @param {SVGElement} svg
 * @param {StepPoint[]} points
 * @param {(index: number) => number} x
 */
function drawPhases(svg, points, x) {
  const y = HEIGHT - 5;
  for (const name of ["forward", "backward"]) {
    const index = points.findIndex((point) => point.place.startsWith(name));
    if (index < 0) continue;
    svg.append(svgElement("text", { x: x(index), y, class: "tf-mini-text", "text-anchor": "start" }, name));
  }
  if (points.some((point) => point.place === "optimizer step")) {
    svg.append(svgElement("text", { x: WIDTH - RIGHT, y, class: "tf-mini-text", "text-anchor": "end" }, "update"));
  }
}

// -- memory against a size: this method, the others faintly, the device's limit, the chosen point ---------------------

/**
 * @param {string} title
 * @param {Curves} chart
 * @param {DeviceSize} device
 * @param {string} unit
 */
export function sizePanel(title, chart, device, unit) {
  // far below the device the process would be a flat line: there the tensors alone say more
  const isNear = Math.max(...chart.curves[0].process) > device.bytes * FLAT_BELOW;
  const sizesOf = (/** @type {Curve} */ curve) => (isNear ? curve.process : curve.tensors);
  const own = sizesOf(chart.curves[0]);
  const top = Math.max(...own, isNear ? device.bytes : 0) * HEADROOM;
  const svg = canvas(`${title} on ${device.name}`);
  const y = verticalScale(top);
  const first = chart.values[0];
  const last = chart.values[chart.values.length - 1];
  const x = (/** @type {number} */ value) =>
    LEFT + ((WIDTH - LEFT - RIGHT) * Math.log(value / first)) / Math.log(last / first || 2);
  axisLines(svg, y, top);
  const frame = clippedGroup(svg);
  const pointsOf = (/** @type {Curve} */ curve) =>
    chart.values.map((value, index) => /** @type {Point} */ ([x(value), y(sizesOf(curve)[index])]));
  for (const curve of chart.curves.slice(1).reverse()) drawOther(svg, frame, pointsOf(curve), curve, sizesOf(curve));
  frame.append(svgElement("path", { d: pathOf(pointsOf(chart.curves[0])), class: "tf-mini-line" }));
  if (isNear) {
    const height = y(device.bytes);
    svg.append(svgElement("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: height, y2: height, class: "tf-mini-limit" }));
  }
  const chosen = Math.min(last, Math.max(first, chart.at));
  const chosenSize = interpolate(chart.values, own, chosen);
  svg.append(svgElement("circle", { cx: x(chosen), cy: y(chosenSize), r: 4, class: "tf-mini-dot" }));
  for (const value of new Set([first, chosen, last])) {
    if (value !== chosen && Math.abs(x(value) - x(chosen)) < LABEL_WIDTH) continue;
    const anchor = value === last ? "end" : "middle";
    svg.append(svgElement("text", { x: x(value), y: HEIGHT - 5, class: "tf-mini-text", "text-anchor": anchor }, value));
  }
  const size = bytes(device.bytes);
  const limit = isNear ? `Red: ${device.name}, ${size}.` : `${device.name} has ${size}, far above.`;
  return panel(`${title}, ${isNear ? "whole process" : "tensors"}`, svg, `${unit}. ${limit}`);
}

let frames = 0;

/**
 * A group that shows only what lies within the axes: a higher curve leaves the chart.
 * @param {SVGElement} svg
 */
function clippedGroup(svg) {
  frames += 1;
  const id = `tf-frame-${frames}`;
  const clip = svgElement("clipPath", { id });
  const [width, height] = [WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM];
  clip.append(svgElement("rect", { x: LEFT, y: TOP, width, height }));
  const group = svgElement("g", { "clip-path": `url(#${id})` });
  svg.append(clip, group);
  return group;
}

/**
 * Another method's faint line, and its name at the end of what is seen of it, shown while it is pointed at or chosen by
 * name. A wider, invisible line over it is what can be pointed at.
 * @param {SVGElement} svg
 * @param {SVGElement} frame
 * @param {Point[]} points
 * @param {Curve} curve
 * @param {number[]} sizes
 */
function drawOther(svg, frame, points, curve, sizes) {
  const line = svgElement("path", { d: pathOf(points), class: "tf-mini-other" });
  line.dataset.method = curve.method;
  const inSight = points.filter(([, y]) => y >= TOP);
  const [x, y] = inSight.at(-1) ?? points[0];
  const text = `${curve.title}: ${bytes(sizes[0])} to ${bytes(sizes[sizes.length - 1])}`;
  const position = { x: Math.max(x, WIDTH / 2), y: Math.max(TOP + 8, y - 5) };
  const name = svgElement("text", { ...position, class: "tf-mini-name", "text-anchor": "end" }, text);
  name.dataset.method = curve.method;
  svg.append(name);
  const pointed = svgElement("path", { d: pathOf(points), class: "tf-mini-pointed" });
  pointed.addEventListener("pointerenter", () => highlight(svg, curve.method));
  pointed.addEventListener("pointerleave", () => highlight(svg, null));
  frame.append(line, pointed);
}

/**
 * @param {Element} root
 * @param {string | null} method
 */
function highlight(root, method) {
  for (const node of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll("[data-method]"))) {
    node.classList.toggle("tf-mini-on", node.dataset.method === method);
  }
}

/**
 * The names of the faint lines, once for all charts within `root`: a name that is pointed at or focused shows its
 * lines.
 * @param {Curve[]} curves
 * @param {Element} root
 */
export function otherNames(curves, root) {
  if (curves.length < 2) return null;
  const names = curves.slice(1).map(({ method, title }) => {
    const on = () => highlight(root, method);
    const off = () => highlight(root, null);
    const listeners = { onpointerenter: on, onfocus: on, onclick: on, onpointerleave: off, onblur: off };
    return element("button", { type: "button", class: "tf-mem-name", ...listeners }, title);
  });
  return element("p", { class: "tf-small tf-mem-names" }, ["Faint:", ...names]);
}
