// Small charts of memory: through one step, and against rows and length, with the other methods to compare.

import { bytes, element } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
export const WIDE = 300,
  HIGH = 120,
  LEFT = 52,
  RIGHT = 8,
  TOP = 8,
  BOTTOM = 20;

export function draw(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

export function canvas(label) {
  return draw("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": label, class: "tf-mini" });
}

export function panel(title, picture, said) {
  return element("figure", { class: "tf-mem-panel" }, [
    element("figcaption", {}, title),
    picture,
    said ? element("p", { class: "tf-small" }, said) : null,
  ]);
}

function path(points) {
  return points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

export function heightOf(top) {
  return (count) => HIGH - BOTTOM - ((HIGH - TOP - BOTTOM) * count) / top;
}

export function scale(svg, y, top) {
  for (const count of [0, top / 2, top]) {
    svg.append(draw("line", { x1: LEFT, x2: WIDE - RIGHT, y1: y(count), y2: y(count), class: "tf-mini-grid" }));
    svg.append(
      draw("text", { x: LEFT - 4, y: y(count) + 3, class: "tf-mini-text", "text-anchor": "end" }, bytes(count)),
    );
  }
}

// -- memory through one step, the peak marked and named --------------------------------------------------------------
export function stepPanel(points) {
  const top = Math.max(...points.map((point) => point.bytes)) * 1.15;
  const svg = canvas("Memory through one update"),
    y = heightOf(top);
  const x = (index) => LEFT + ((WIDE - LEFT - RIGHT) * index) / Math.max(1, points.length - 1);
  scale(svg, y, top);
  svg.append(
    draw("path", { d: path(points.map((point, index) => [x(index), y(point.bytes)])), class: "tf-mini-line" }),
  );
  const peak = points.reduce((best, point, index) => (point.bytes > points[best].bytes ? index : best), 0);
  svg.append(draw("circle", { cx: x(peak), cy: y(points[peak].bytes), r: 4, class: "tf-mini-dot" }));
  const ends = [
    ["forward", points.findIndex((point) => point.place.startsWith("forward"))],
    ["backward", points.findIndex((point) => point.place.startsWith("backward"))],
    ["update", points.findIndex((point) => point.place === "optimizer step")],
  ];
  for (const [name, index] of ends) {
    if (index < 0) continue;
    const last = name === "update";
    svg.append(
      draw(
        "text",
        {
          x: last ? WIDE - RIGHT : x(index),
          y: HIGH - 5,
          class: "tf-mini-text",
          "text-anchor": last ? "end" : "start",
        },
        name,
      ),
    );
  }
  for (const [index, point] of points.entries()) {
    const spot = draw("rect", { x: x(index) - 3, y: TOP, width: 6, height: HIGH - TOP - BOTTOM, fill: "transparent" });
    spot.append(draw("title", {}, `${point.place}: ${bytes(point.bytes)}`));
    svg.append(spot);
  }
  return panel(
    "Through one update",
    svg,
    `Highest at: ${points[peak].place}, ${bytes(points[peak].bytes)} of tensors.`,
  );
}

// -- memory against a size: this method, the others faintly, the device's limit, the chosen point ---------------------
export function sizePanel(title, chart, device, unit) {
  // far below the device the process would be a flat line: there the tensors alone say more
  const near = device.bytes < Math.max(...chart.curves[0].process) * 3;
  const of = (curve) => (near ? curve.process : curve.tensors);
  const own = of(chart.curves[0]);
  const most = Math.max(...own);
  const top = (near ? Math.max(most, device.bytes) : most) * 1.1;
  const svg = canvas(`${title} on ${device.name}`),
    y = heightOf(top);
  const [first, last] = [chart.values[0], chart.values.at(-1)];
  const x = (value) => LEFT + ((WIDE - LEFT - RIGHT) * Math.log(value / first)) / Math.log(last / first || 2);
  scale(svg, y, top);
  const frame = clipped(svg);
  const lines = chart.curves.map((curve, index) => ({ curve, index })).reverse();
  for (const { curve, index } of lines) {
    const spots = chart.values.map((value, at) => [x(value), y(of(curve)[at])]);
    const line = draw("path", { d: path(spots), class: index ? "tf-mini-other" : "tf-mini-line" });
    if (index) line.dataset.method = curve.method;
    frame.append(line);
    if (index)
      drawName(svg, frame, spots, curve, `${curve.title}: ${bytes(of(curve)[0])} to ${bytes(of(curve).at(-1))}`);
  }
  if (near) {
    svg.append(
      draw("line", { x1: LEFT, x2: WIDE - RIGHT, y1: y(device.bytes), y2: y(device.bytes), class: "tf-mini-limit" }),
    );
  }
  const here = Math.min(last, Math.max(first, chart.at));
  svg.append(draw("circle", { cx: x(here), cy: y(between(chart.values, own, here)), r: 4, class: "tf-mini-dot" }));
  for (const value of new Set([first, here, last])) {
    if (value !== here && Math.abs(x(value) - x(here)) < 24) continue;
    svg.append(
      draw(
        "text",
        { x: x(value), y: HIGH - 5, class: "tf-mini-text", "text-anchor": value === last ? "end" : "middle" },
        value,
      ),
    );
  }
  return panel(
    `${title}, ${near ? "whole process" : "tensors"}`,
    svg,
    `${unit}. ${near ? `Red: ${device.name}, ${bytes(device.bytes)}.` : `${device.name} has ${bytes(device.bytes)}, far above.`}`,
  );
}

let frames = 0;

/** A group that shows only what lies within the axes: a higher curve leaves the chart. */
function clipped(svg) {
  const id = `tf-frame-${(frames += 1)}`;
  const clip = draw("clipPath", { id });
  clip.append(draw("rect", { x: LEFT, y: TOP, width: WIDE - LEFT - RIGHT, height: HIGH - TOP - BOTTOM }));
  const frame = draw("g", { "clip-path": `url(#${id})` });
  svg.append(clip, frame);
  return frame;
}

/** Another method's name at the end of what is seen of its line, shown while it is pointed at or chosen by name. */
function drawName(svg, frame, spots, curve, said) {
  const seen = spots.filter(([, high]) => high >= TOP),
    [x, high] = seen.at(-1) ?? spots[0];
  const name = draw(
    "text",
    { x: Math.max(x, WIDE / 2), y: Math.max(TOP + 8, high - 5), class: "tf-mini-name", "text-anchor": "end" },
    said,
  );
  name.dataset.method = curve.method;
  svg.append(name);
  const reach = draw("path", { d: path(spots), class: "tf-mini-reach" });
  reach.addEventListener("pointerenter", () => light(svg, curve.method));
  reach.addEventListener("pointerleave", () => light(svg, null));
  frame.append(reach);
}

function light(root, method) {
  for (const node of root.querySelectorAll("[data-method]"))
    node.classList.toggle("tf-mini-on", node.dataset.method === method);
}

/** The names of the faint lines, once for all charts within `root`: a name that is pointed at or focused shows its lines. */
export function otherNames(curves, root) {
  if (curves.length < 2) return null;
  const names = curves
    .slice(1)
    .map(({ method, title }) =>
      element(
        "button",
        {
          type: "button",
          class: "tf-mem-name",
          onpointerenter: () => light(root, method),
          onfocus: () => light(root, method),
          onclick: () => light(root, method),
          onpointerleave: () => light(root, null),
          onblur: () => light(root, null),
        },
        title,
      ),
    );
  return element("p", { class: "tf-small tf-mem-names" }, ["Faint:", ...names]);
}

function between(values, counts, at) {
  const above = values.findIndex((value) => value >= at);
  if (above <= 0) return counts[Math.max(0, above)];
  const share = (at - values[above - 1]) / (values[above] - values[above - 1]);
  return counts[above - 1] + share * (counts[above] - counts[above - 1]);
}
