// @ts-check
// The curves: one Plotly figure over all shown runs, redrawn in place so that the zoom survives.

import { positionOf, positionOfEvaluation, smooth, thin } from "./curves.js";
import { element } from "./dom.js";
import { plural } from "./format.js";
import { basicPlotly } from "./plotly.js";
import { onChange, runById, state } from "./polling.js";
import { assignLooks, lookOf } from "./run_look.js";
import { isActive, isShown } from "./run_state.js";
import { nameOf, notComparable } from "./run_text.js";

/** @typedef {import("./shapes").ChartConfig} ChartConfig */
/** @typedef {import("./shapes").RunLine} RunLine */
/** @typedef {import("./run_state.js").Series} Series */

/**
 * How a person looks at the curves.
 * @typedef {{ metric: string, axis: string, smoothing: number, log: boolean }} View
 */

const NOTHING = "No run is shown. Press Start training: the curve appears here while it learns.";
const STORED_VIEW = "tuning-fork-chart"; // for the next visit
const MOST_SMOOTHING = 0.98;
/** @type {View} */
const DEFAULT_VIEW = { metric: "loss", axis: "step", smoothing: 0.6, log: false };
const PLOT_OPTIONS = {
  displaylogo: false,
  responsive: false,
  showTips: false,
  plotlyServerURL: "", // a chart stays here: without this, "Share chart" sends it to Plotly's cloud
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendChartToCloud"],
};

function shownRuns() {
  return state.runs.filter((run) => isShown(state, run));
}

/** Those of the shown runs that have points. */
function drawnRuns() {
  return shownRuns().filter((run) => {
    const series = state.series.get(run.run_id);
    return series?.step.length || series?.eval.length;
  });
}

/**
 * @param {ChartConfig} config
 * @param {View} view
 */
function traces(config, view) {
  const all = drawnRuns()
    .reverse()
    .flatMap((run) => tracesOf(run, /** @type {Series} */ (state.series.get(run.run_id)), config, view));
  // run names are plain text: Plotly reads a few tags, so the signs that open one are taken away
  for (const trace of all) trace.name = trace.name.replace(/[<>&]/g, " ");
  return all;
}

/**
 * The traces of one run: its updates as they are, faintly; smoothed; and its evaluations.
 * @param {RunLine} run
 * @param {Series} series
 * @param {ChartConfig} config
 * @param {View} view
 */
function tracesOf(run, series, config, view) {
  const { color, dash, symbol } = lookOf(run, config.palette);
  const axis = /** @type {import("./curves.js").Axis} */ (view.axis);
  const metric = /** @type {"loss" | "learning_rate" | "grad_norm"} */ (view.metric);
  const name = nameOf(run);
  const base = { type: "scatter", legendgroup: run.run_id };
  const xs = series.step.map((point) => positionOf(axis, point));
  const raw = series.step.map((point) => point[metric] ?? null);
  const isSmoothed = metric !== "learning_rate" && view.smoothing > 0;
  const traces = [];
  if (isSmoothed) {
    const [x, y] = thin(xs, raw);
    traces.push({
      ...base,
      x,
      y,
      mode: "lines",
      hoverinfo: "skip",
      showlegend: false,
      uid: `${run.run_id}-raw`,
      line: { color, width: 1, dash },
      opacity: 0.28,
      name,
    });
  }
  const [x, y] = thin(xs, isSmoothed ? smooth(raw, view.smoothing) : raw);
  const isLevel = x.length === 0; // nothing is trained: the evaluation is all there is, and takes the legend's entry
  if (!isLevel) {
    traces.push({
      ...base,
      x,
      y,
      mode: x.length === 1 ? "markers" : "lines",
      name,
      uid: `${run.run_id}-smooth`,
      line: { color, width: 2.2, dash },
      marker: { color, symbol },
      hovertemplate: "%{y:.4~g}<extra>%{fullData.name}</extra>",
    });
  }
  if (metric === "loss" && series.eval.length) {
    traces.push({
      ...base,
      x: series.eval.map((point) => positionOfEvaluation(axis, point, series.step)),
      y: series.eval.map((point) => point.loss),
      mode: "lines+markers",
      cliponaxis: false,
      showlegend: isLevel,
      uid: `${run.run_id}-eval`,
      name: isLevel ? name : `${name}, eval`,
      line: { color, width: 1.6, dash: "dot" },
      marker: { symbol, size: 7, color },
      hovertemplate: "%{y:.4~g} eval<extra>%{fullData.name}</extra>",
    });
  }
  return traces;
}

/**
 * @param {ChartConfig} config
 * @param {View} view
 */
function layout(config, view) {
  const css = getComputedStyle(document.querySelector(".gradio-container") ?? document.body);
  const color = (/** @type {string} */ name) => css.getPropertyValue(name).trim();
  const grid = color("--border-color-primary");
  const axis = {
    gridcolor: grid,
    linecolor: grid,
    zeroline: false,
    color: color("--body-text-color-subdued"),
    automargin: true,
    tickfont: { size: 12 },
  };
  return {
    uirevision: `${view.metric}/${view.axis}/${view.log}`, // constant while the same picture grows
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    margin: { l: 52, r: 12, t: 8, b: 36 },
    hovermode: "x unified",
    showlegend: true,
    font: { family: "system-ui, sans-serif", color: color("--body-text-color"), size: 12 },
    hoverlabel: { bgcolor: color("--background-fill-primary"), bordercolor: grid },
    legend: { orientation: "h", y: -0.16, x: 0, yanchor: "top" },
    xaxis: { ...axis, title: { text: config.axes[view.axis], font: { size: 12 }, standoff: 8 }, rangemode: "tozero" },
    yaxis: {
      ...axis,
      title: { text: config.metrics[view.metric], font: { size: 12 } },
      type: view.log ? "log" : "linear",
      exponentformat: "power",
    },
  };
}

/**
 * A labelled list to choose from.
 * @param {string} label
 * @param {Record<string, string>} options
 * @param {string} value
 * @param {(value: string) => void} onChoice
 */
function choice(label, options, value, onChoice) {
  const select = element(
    "select",
    {},
    Object.entries(options).map(([key, title]) => element("option", { value: key, selected: key === value }, title)),
  );
  select.addEventListener("change", () => onChoice(select.value));
  return element("label", { class: "tf-control" }, [element("span", {}, label), select]);
}

/**
 * The state of the connection, and how many runs go.
 * @param {HTMLElement} chip
 */
function drawLink(chip) {
  const active = state.runs.filter(isActive).length;
  const texts = {
    connecting: "connecting…",
    reconnecting: "reconnecting…",
    refused: "The server was started anew: open the address it printed.",
    live: active ? `live · ${plural(active, "run")}` : "idle",
  };
  chip.textContent = texts[state.link];
  if (state.link === "live" && active) chip.dataset.state = "running";
  else chip.dataset.state = state.link === "refused" ? "failed" : state.link;
}

/**
 * What the figure depends on; an idle page does not redraw.
 * @returns {string}
 */
function figureKey() {
  const runs = shownRuns().map((run) => [run.run_id, run.state, run.name, state.series.get(run.run_id)?.id]);
  return JSON.stringify([state.runs.some(isActive), runs]);
}

/**
 * @param {HTMLElement} root
 * @param {ChartConfig} config
 */
export function mountChart(root, config) {
  const view = storedView(config);
  const chip = element("span", { class: "tf-chip tf-link", role: "status" }, "connecting…");
  const plot = element("div", { class: "tf-plot", role: "group" });
  const empty = element("p", { class: "tf-empty" }, NOTHING);
  const mixed = element("p", { class: "tf-small tf-mixed", role: "note", hidden: true });
  const change = (/** @type {Partial<View>} */ values) => {
    Object.assign(view, values);
    localStorage.setItem(STORED_VIEW, JSON.stringify(view));
    draw();
  };
  root.replaceChildren(
    element("section", { class: "tf-card", "aria-label": "Curves" }, [
      element("div", { class: "tf-controls" }, [chip, ...controls(config, view, change)]),
      mixed,
      plot,
      empty,
    ]),
  );
  plot.hidden = true; // until there is something to draw

  let busy = false;
  let drawAgain = false;
  async function draw() {
    if (busy) {
      drawAgain = true;
      return;
    }
    busy = true;
    try {
      await drawNow();
    } finally {
      busy = false;
    }
    if (drawAgain) {
      drawAgain = false;
      draw();
    }
  }

  async function drawNow() {
    const data = traces(config, view);
    const isWaiting = shownRuns().some(isActive);
    empty.hidden = data.length > 0;
    empty.textContent = isWaiting ? "The first point is on its way." : NOTHING;
    // as high as the chart will be: what stands under it stays where it is
    empty.classList.toggle("tf-waiting", isWaiting);
    const words = view.metric === "learning_rate" ? "" : notComparable(drawnRuns(), config.tasks, runById);
    mixed.textContent = words;
    mixed.hidden = !words;
    plot.hidden = data.length === 0;
    if (!data.length) return;
    const Plotly = await basicPlotly();
    await Plotly.react(plot, data, layout(config, view), PLOT_OPTIONS);
    plot.setAttribute("aria-label", summary(config, view));
  }

  let drawn = "";
  onChange(() => {
    assignLooks(shownRuns(), config.palette);
    drawLink(chip);
    const key = figureKey();
    if (key === drawn) return;
    drawn = key;
    draw();
  });
  new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  new ResizeObserver(async () => {
    if (!("data" in plot) || plot.hidden) return;
    const Plotly = await basicPlotly();
    if (!plot.hidden) Plotly.Plots.resize(plot);
  }).observe(root);
}

/**
 * @param {ChartConfig} config
 * @param {View} view
 * @param {(values: Partial<View>) => void} change
 */
function controls(config, view, change) {
  const percent = Math.round(100 * view.smoothing);
  const output = element("output", {}, `${percent}%`);
  const slider = element("input", { type: "range", min: 0, max: 100 * MOST_SMOOTHING, value: percent });
  slider.addEventListener("input", () => {
    output.textContent = `${slider.value}%`;
    change({ smoothing: Number(slider.value) / 100 });
  });
  const log = element("input", { type: "checkbox", checked: view.log });
  log.addEventListener("change", () => change({ log: log.checked }));
  return [
    choice("show", config.metrics, view.metric, (metric) => change({ metric })),
    choice("by", config.axes, view.axis, (axis) => change({ axis })),
    element("label", { class: "tf-control" }, [element("span", {}, "smoothing"), slider, output]),
    element("label", { class: "tf-control" }, [log, element("span", {}, "log scale")]),
  ];
}

/**
 * How the curves were looked at last; what there is no longer has its first value.
 * @param {ChartConfig} config
 * @returns {View}
 */
function storedView(config) {
  let stored = /** @type {any} */ ({});
  try {
    stored = JSON.parse(localStorage.getItem(STORED_VIEW) ?? "{}") ?? {};
  } catch {
    // not written by this page
  }
  const smoothing = Number(stored.smoothing);
  const isWeight = stored.smoothing !== undefined && smoothing >= 0 && smoothing <= MOST_SMOOTHING;
  return {
    metric: stored.metric in config.metrics ? stored.metric : DEFAULT_VIEW.metric,
    axis: stored.axis in config.axes ? stored.axis : DEFAULT_VIEW.axis,
    smoothing: isWeight ? smoothing : DEFAULT_VIEW.smoothing,
    log: stored.log === true,
  };
}

/**
 * The figure in words, for people who cannot see it.
 * @param {ChartConfig} config
 * @param {View} view
 */
function summary(config, view) {
  const parts = shownRuns().map((run) => {
    const last = state.series.get(run.run_id)?.step.at(-1);
    const metric = /** @type {"loss" | "learning_rate" | "grad_norm"} */ (view.metric);
    return last ? `${nameOf(run)}: ${Number(last[metric]).toPrecision(4)} at step ${last.step}` : "";
  });
  return `${config.metrics[view.metric]} by ${config.axes[view.axis]}. ${parts.filter(Boolean).join("; ")}`;
}
