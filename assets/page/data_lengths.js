// How long rows are in tokens, with the chosen maximum as a line. Plain SVG in the page's own colours.

import { element } from "./dom.js";
import { plural } from "./notices.js";

const WIDTH = 640,
  HEIGHT = 130,
  FOOT = 20,
  TOP = 14;

function svg(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  return node;
}

export function lengthsFigure(found) {
  const lengths = found.lengths,
    bars = lengths.counts,
    end = lengths.bar * bars.length;
  const summary = words(lengths, found.looked_at);
  const figure = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    role: "img",
    "aria-label": `Row lengths in tokens. ${summary}`,
    class: "tf-lengths",
  });
  const most = Math.max(...bars),
    step = WIDTH / bars.length,
    room = HEIGHT - FOOT - TOP;
  bars.forEach((rows, place) => {
    const height = rows ? Math.max(2, (room * rows) / most) : 0;
    const bar = svg("rect", {
      x: place * step + 1,
      y: HEIGHT - FOOT - height,
      width: step - 2,
      height,
      class: place * lengths.bar >= lengths.limit ? "tf-length-cut" : "tf-length",
    });
    const last = place === bars.length - 1 && lengths.beyond;
    bar.append(
      svg(
        "title",
        {},
        `${plural(rows, "row")} of ${place * lengths.bar + 1} ${last ? "tokens or more" : `to ${(place + 1) * lengths.bar} tokens`}`,
      ),
    );
    figure.append(bar);
  });
  figure.append(svg("line", { x1: 0, x2: WIDTH, y1: HEIGHT - FOOT, y2: HEIGHT - FOOT, class: "tf-length-axis" }));
  for (const share of [0, 0.5, 1]) {
    figure.append(
      svg(
        "text",
        {
          x: share * WIDTH,
          y: HEIGHT - 5,
          class: "tf-length-text",
          "text-anchor": share === 0 ? "start" : share === 1 ? "end" : "middle",
        },
        `${Math.round(share * end)}${share === 1 ? (lengths.beyond ? "+ tokens" : " tokens") : ""}`,
      ),
    );
  }
  if (lengths.limit <= end) {
    const x = (lengths.limit / end) * WIDTH;
    figure.append(
      svg("line", { x1: x, x2: x, y1: 0, y2: HEIGHT - FOOT, class: "tf-length-limit" }),
      svg(
        "text",
        {
          x: x > WIDTH - 150 ? x - 5 : x + 5,
          y: 11,
          class: "tf-length-text",
          "text-anchor": x > WIDTH - 150 ? "end" : "start",
        },
        `max_seq_length ${lengths.limit}`,
      ),
    );
  }
  return element("section", { "aria-label": "Row lengths" }, [
    element("h3", {}, "How long rows are"),
    figure,
    element("p", { class: "tf-small" }, summary),
  ]);
}

function words(lengths, looked) {
  const number = (value) => Math.round(value).toLocaleString("en");
  const cut = lengths.cut_rows
    ? `A maximum sequence length of ${number(lengths.limit)} cuts ${number(lengths.cut_rows)} of ${plural(lengths.rows, "row")} and ${plural(lengths.cut_answers, "answer")}` +
      (lengths.lost_answers ? `, ${number(lengths.lost_answers)} of them whole` : "")
    : `A maximum sequence length of ${number(lengths.limit)} cuts none of ${plural(lengths.rows, "row")}`;
  return (
    `${cut}. The longest has ${plural(lengths.longest, "token")}, the mean is ${number(lengths.mean)}; ` +
    `${Math.round(100 * lengths.trained_share)} % of the tokens are trained on.`
  );
}
