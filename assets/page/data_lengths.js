// @ts-check
// How long rows are in tokens, with the chosen maximum as a line. Plain SVG in the page's own colours.

import { element, svgElement } from "./dom.js";
import { count, plural } from "./format.js";

/** @typedef {import("./shapes").Lengths} Lengths */

const WIDTH = 640;
const HEIGHT = 130;
const BOTTOM = 20;
const TOP = 14;
const LIMIT_LABEL_WIDTH = 150;

/** @param {Lengths} lengths */
export function lengthsFigure(lengths) {
  const summary = lengthsText(lengths);
  const figure = svgElement("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    role: "img",
    "aria-label": `Row lengths in tokens. ${summary}`,
    class: "tf-lengths",
  });
  figure.append(...bars(lengths), ...axis(lengths), ...limitLine(lengths));
  return element("section", { "aria-label": "Row lengths" }, [
    element("h3", {}, "How long rows are"),
    figure,
    element("p", { class: "tf-small" }, summary),
  ]);
}

/**
 * The tokens at the right end of the axis.
 * @param {Lengths} lengths
 */
function endOf(lengths) {
  return lengths.bar * lengths.counts.length;
}

/** @param {Lengths} lengths */
function bars(lengths) {
  const { counts, bar: tokens } = lengths;
  const most = Math.max(...counts);
  const width = WIDTH / counts.length;
  return counts.map((rows, index) => {
    const height = rows ? Math.max(2, ((HEIGHT - BOTTOM - TOP) * rows) / most) : 0;
    const bar = svgElement("rect", {
      x: index * width + 1,
      y: HEIGHT - BOTTOM - height,
      width: width - 2,
      height,
      class: index * tokens >= lengths.limit ? "tf-length-cut" : "tf-length",
    });
    const isOpen = index === counts.length - 1 && lengths.beyond;
    const upTo = isOpen ? "tokens or more" : `to ${(index + 1) * tokens} tokens`;
    bar.append(svgElement("title", {}, `${plural(rows, "row")} of ${index * tokens + 1} ${upTo}`));
    return bar;
  });
}

/** @param {Lengths} lengths */
function axis(lengths) {
  const y = HEIGHT - BOTTOM;
  const line = svgElement("line", { x1: 0, x2: WIDTH, y1: y, y2: y, class: "tf-length-axis" });
  const unit = lengths.beyond ? "+ tokens" : " tokens";
  const label = (/** @type {number} */ share, /** @type {string} */ anchor) => {
    const attributes = { x: share * WIDTH, y: HEIGHT - 5, class: "tf-length-text", "text-anchor": anchor };
    return svgElement("text", attributes, `${Math.round(share * endOf(lengths))}${share === 1 ? unit : ""}`);
  };
  return [line, label(0, "start"), label(0.5, "middle"), label(1, "end")];
}

/**
 * The maximum length, where it lies on the axis.
 * @param {Lengths} lengths
 */
function limitLine(lengths) {
  if (lengths.limit > endOf(lengths)) return [];
  const x = (lengths.limit / endOf(lengths)) * WIDTH;
  const isRight = x > WIDTH - LIMIT_LABEL_WIDTH;
  const position = { x: isRight ? x - 5 : x + 5, y: 11, "text-anchor": isRight ? "end" : "start" };
  return [
    svgElement("line", { x1: x, x2: x, y1: 0, y2: HEIGHT - BOTTOM, class: "tf-length-limit" }),
    svgElement("text", { ...position, class: "tf-length-text" }, `max_seq_length ${lengths.limit}`),
  ];
}

/** @param {Lengths} lengths */
export function lengthsText(lengths) {
  const rows = plural(lengths.rows, "row");
  const lost = lengths.lost_answers ? `, ${count(lengths.lost_answers)} of them whole` : "";
  const answers = `${plural(lengths.cut_answers, "answer")}${lost}`;
  const cut = lengths.cut_rows ? `${count(lengths.cut_rows)} of ${rows} and ${answers}` : `none of ${rows}`;
  const longest = plural(lengths.longest, "token");
  return (
    `A maximum sequence length of ${count(lengths.limit)} cuts ${cut}. ` +
    `The longest has ${longest}, the mean is ${count(lengths.mean)}; ` +
    `${Math.round(100 * lengths.trained_share)} % of the tokens are trained on.`
  );
}
