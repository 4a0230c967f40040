// @ts-check
// The confusion matrix of an evaluation: a table, and the same as a heat map where a person opens it.

import { element, messageOf, toast } from "./dom.js";
import { fullPlotly } from "./plotly.js";

/** @typedef {import("./shapes").Predictions} Predictions */
/** @typedef {{ labels: string[], confusion: number[][] }} Matrix rows are the truth, columns the prediction */

const PLOT_OPTIONS = { displayModeBar: false, responsive: true };

export class ConfusionMatrix {
  constructor() {
    this.table = element("div", { class: "tf-scroll" });
    this.plot = element("div", { class: "tf-heat", role: "img", "aria-label": "Confusion matrix as a heat map" });
    this.details = element("details", { class: "tf-mem-details", hidden: true }, [
      element("summary", {}, "As a heat map"),
      this.plot,
    ]);
    this.node = element("div", {}, [this.table, this.details]);
    /** @type {Matrix | null} */
    this.matrix = null;
    const redraw = () => this.drawHeatMap();
    this.details.addEventListener("toggle", redraw);
    // light and dark are a class of the body
    new MutationObserver(redraw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  }

  /** @param {Predictions | null} predictions of another task than classes there is none */
  draw(predictions) {
    const { labels, confusion } = predictions ?? {};
    this.matrix = labels && confusion ? { labels, confusion } : null;
    this.table.replaceChildren(...(this.matrix ? [matrixTable(this.matrix)] : []));
    this.details.hidden = !this.matrix;
    this.drawHeatMap();
  }

  /** Draws the heat map where it is open; until then Plotly's full script is not fetched. */
  async drawHeatMap() {
    if (!this.details.open || !this.matrix) return;
    try {
      const Plotly = await fullPlotly();
      if (!this.matrix) return;
      await Plotly.react(this.plot, [heatMap(this.matrix)], layout(this.plot), PLOT_OPTIONS);
    } catch (error) {
      toast(messageOf(error));
    }
  }
}

/** @param {Matrix} matrix */
function matrixTable({ labels, confusion }) {
  const most = Math.max(1, ...confusion.flat());
  const heads = ["", ...labels].map((label) => element("th", { scope: "col" }, label));
  const lines = confusion.map((counts, truth) =>
    element("tr", {}, [
      element("th", { scope: "row" }, labels[truth]),
      ...counts.map((rows, prediction) => matrixCell(rows, rows / most, truth === prediction)),
    ]),
  );
  return element("table", { class: "tf-table tf-confusion" }, [
    element("caption", {}, "Rows are the truth, columns the prediction"),
    element("thead", {}, element("tr", {}, heads)),
    element("tbody", {}, lines),
  ]);
}

/**
 * @param {number} rows
 * @param {number} share of the largest cell
 * @param {boolean} isRight
 */
function matrixCell(rows, share, isRight) {
  const cell = element("td", { class: "tf-num" }, rows);
  cell.style.setProperty("--share", String(share));
  cell.dataset.right = String(isRight);
  return cell;
}

/** @param {Matrix} matrix */
function heatMap({ labels, confusion }) {
  // names are plain text: Plotly reads a few tags, so the signs that open one are taken away
  const names = labels.map((label) => label.replace(/[<>&]/g, " "));
  return {
    type: "heatmap",
    x: names,
    y: names,
    z: confusion,
    colorscale: "Blues",
    reversescale: true,
    hovertemplate: "%{y}, predicted %{x}: %{z}<extra></extra>",
  };
}

/** @param {HTMLElement} node whose colours it takes */
function layout(node) {
  const css = getComputedStyle(node);
  return {
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    margin: { l: 80, r: 12, t: 8, b: 48 },
    font: { family: "system-ui, sans-serif", color: css.color, size: 12 },
    xaxis: { title: { text: "prediction" }, type: "category", automargin: true },
    yaxis: { title: { text: "truth" }, type: "category", autorange: "reversed", automargin: true },
  };
}
