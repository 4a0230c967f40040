// The curves: one Plotly figure over all shown runs, redrawn in place so that the zoom survives.

import { begin, onChange, runById, state, isActive } from "./live.js";
import { element } from "./dom.js";
import { giveLooks, lookOf } from "./run_look.js";

const MOST = 1200; // points drawn a run; more are cut to the lowest and highest of each bucket
const NOTHING = "No run is shown. Press Start training: the curve appears here while it learns.";
const KEPT = "tuning-fork-chart"; // how a person wants to look at curves, for the next visit
const FIRST = { metric: "loss", axis: "step", smoothing: 0.6, log: false };
let plotly = null;

function loadPlotly() {
  plotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL("../vendor/plotly-basic.min.js", import.meta.url);
    script.onload = () => resolve(window.Plotly);
    script.onerror = reject;
    document.head.append(script);
  });
  return plotly;
}

export function smooth(values, weight) {
  // exponential moving average, corrected for its start, stepping over gaps
  let sum = 0,
    mass = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return sum / mass;
  });
}

export function thin(xs, ys) {
  if (xs.length <= MOST) return [xs, ys];
  const outX = [],
    outY = [],
    width = xs.length / (MOST / 2);
  for (let start = 0; start < xs.length; start += width) {
    const from = Math.floor(start),
      to = Math.min(xs.length, Math.floor(start + width));
    let low = from,
      high = from;
    for (let i = from; i < to; i++) {
      if (ys[i] < ys[low]) low = i;
      if (ys[i] > ys[high]) high = i;
    }
    for (const i of low < high ? [low, high] : low > high ? [high, low] : [low]) {
      outX.push(xs[i]);
      outY.push(ys[i]);
    }
  }
  return [outX, outY];
}

/** Where a point lies on an axis. An evaluation lies where the update does that it follows: its own seconds say how long
 * it took. Between two updates that are known (long runs come thinned) it lies in proportion. */
export function xOf(axis, point, steps, evaluation = false) {
  if (axis === "step") return point.step;
  if (!evaluation) return point[axis] ?? null;
  if (point.step === 0) return 0; // before the first update
  const after = steps.findIndex((one) => one.step >= point.step);
  const next = steps[after] ?? steps.at(-1),
    last = after > 0 ? steps[after - 1] : { step: 0, [axis]: 0 };
  if (!next) return null;
  if (after < 0 || next.step === point.step) return next[axis] ?? null;
  return last[axis] + ((point.step - last.step) / (next.step - last.step)) * (next[axis] - last[axis]);
}

/** What the losses of a run are of: those of two runs can be compared only where this is the same. */
function measureOf(run) {
  const { task, data } = run.settings;
  return { task, data: run.data_name ?? data.source, source: data.source, model: rootOf(run) };
}

/** The base model under a chain of runs that each began with the result of another. */
function rootOf(run, depth = 0) {
  const { model } = run.settings,
    parent = model.startsWith("run:") ? runById(model.slice(4).split("/")[0]) : null;
  return parent && depth < 20 ? rootOf(parent, depth + 1) : model;
}

/** A sentence where curves of different tasks, data or base models lie on one axis; else nothing. */
export function notComparable(runs, tasks) {
  const of = runs.map(measureOf),
    many = (key) => [...new Set(of.map((one) => one[key]))];
  const words = (list) =>
    list
      .slice(0, 4)
      .map((one) => `“${one}”`)
      .join(", ") + (list.length > 4 ? " …" : "");
  const parts = [];
  if (many("task").length > 1) parts.push(`tasks (${words(many("task").map((task) => tasks[task] ?? task))})`);
  if (many("source").length > 1) parts.push(`data (${words(many("data"))})`);
  if (many("model").length > 1) parts.push(`base models (${words(many("model"))})`);
  return parts.length
    ? `These curves are of different ${parts.join(" and ")}: the height of one says nothing about another.`
    : "";
}

function shownRuns() {
  return state.runs.filter((run) => state.shown?.has(run.run_id));
}

/** Those of the shown runs that have something to draw. */
function drawnRuns() {
  return shownRuns().filter((run) => {
    const series = state.series.get(run.run_id);
    return series?.step.length || series?.eval.length;
  });
}

function traces(config, look) {
  const out = [];
  for (const run of drawnRuns().reverse()) {
    const series = state.series.get(run.run_id);
    const { color, dash, symbol } = lookOf(run, config.palette);
    const xs = series.step.map((point) => xOf(look.axis, point, series.step));
    const raw = series.step.map((point) => point[look.metric] ?? null);
    const name = run.name || run.run_id;
    const smoothed = look.metric === "learning_rate" || look.smoothing === 0 ? raw : smooth(raw, look.smoothing);
    const [rawX, rawY] = thin(xs, raw),
      [x, y] = thin(xs, smoothed);
    const base = { type: "scatter", legendgroup: run.run_id };
    if (smoothed !== raw) {
      out.push({
        ...base,
        x: rawX,
        y: rawY,
        mode: "lines",
        hoverinfo: "skip",
        showlegend: false,
        uid: run.run_id + "-raw",
        line: { color, width: 1, dash },
        opacity: 0.28,
        name,
      });
    }
    const level = x.length === 0; // nothing is trained: the evaluation is all there is, and takes the legend's entry
    if (!level)
      out.push({
        ...base,
        x,
        y,
        mode: x.length === 1 ? "markers" : "lines",
        name,
        uid: run.run_id + "-smooth",
        line: { color, width: 2.2, dash },
        marker: { color, symbol },
        hovertemplate: "%{y:.4~g}<extra>%{fullData.name}</extra>",
      });
    if (look.metric === "loss" && series.eval.length) {
      out.push({
        ...base,
        x: series.eval.map((point) => xOf(look.axis, point, series.step, true)),
        y: series.eval.map((point) => point.loss),
        mode: "lines+markers",
        cliponaxis: false,
        showlegend: level,
        uid: run.run_id + "-eval",
        name: level ? name : `${name}, eval`,
        line: { color, width: 1.6, dash: "dot" },
        marker: { symbol, size: 7, color },
        hovertemplate: "%{y:.4~g} eval<extra>%{fullData.name}</extra>",
      });
    }
  }
  // run names are plain text: Plotly reads a few tags, so the signs that open one are taken away
  for (const trace of out) trace.name = trace.name.replace(/[<>&]/g, " ");
  return out;
}

function layout(config, look) {
  const css = getComputedStyle(document.querySelector(".gradio-container") ?? document.body);
  const color = (name) => css.getPropertyValue(name).trim();
  const grid = color("--border-color-primary"),
    text = color("--body-text-color-subdued");
  const axis = {
    gridcolor: grid,
    linecolor: grid,
    zeroline: false,
    color: text,
    automargin: true,
    tickfont: { size: 12 },
  };
  return {
    uirevision: `${look.metric}/${look.axis}/${look.log}`, // constant while the same picture grows
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    margin: { l: 52, r: 12, t: 8, b: 36 },
    hovermode: "x unified",
    showlegend: true,
    font: { family: "system-ui, sans-serif", color: color("--body-text-color"), size: 12 },
    hoverlabel: { bgcolor: color("--background-fill-primary"), bordercolor: grid },
    legend: { orientation: "h", y: -0.16, x: 0, yanchor: "top" },
    xaxis: { ...axis, title: { text: config.axes[look.axis], font: { size: 12 }, standoff: 8 }, rangemode: "tozero" },
    yaxis: {
      ...axis,
      title: { text: config.metrics[look.metric], font: { size: 12 } },
      type: look.log ? "log" : "linear",
      exponentformat: "power",
    },
  };
}

function choice(label, options, value, onPick) {
  const select = element(
    "select",
    {},
    Object.entries(options).map(([key, title]) => element("option", { value: key, selected: key === value }, title)),
  );
  select.addEventListener("change", () => onPick(select.value));
  return element("label", { class: "tf-control" }, [element("span", {}, label), select]);
}

export function mountChart(root, config) {
  const look = keptLook(config);
  const keep = () => {
    localStorage.setItem(KEPT, JSON.stringify(look));
    draw();
  };
  const chip = element("span", { class: "tf-chip tf-link", role: "status" }, "connecting…");
  const plot = element("div", { class: "tf-plot", role: "group" });
  const empty = element("p", { class: "tf-empty" }, NOTHING);
  const mixed = element("p", { class: "tf-small tf-mixed", role: "note", hidden: true });
  const smoothing = Math.round(100 * look.smoothing);
  const percent = element("output", {}, `${smoothing}%`);
  const slider = element("input", { type: "range", min: 0, max: 98, value: smoothing });
  slider.addEventListener("input", () => {
    look.smoothing = slider.value / 100;
    percent.textContent = slider.value + "%";
    keep();
  });
  const log = element("input", { type: "checkbox", checked: look.log });
  log.addEventListener("change", () => {
    look.log = log.checked;
    keep();
  });
  root.replaceChildren(
    element("section", { class: "tf-card", "aria-label": "Curves" }, [
      element("div", { class: "tf-controls" }, [
        chip,
        choice("show", config.metrics, look.metric, (value) => {
          look.metric = value;
          keep();
        }),
        choice("by", config.axes, look.axis, (value) => {
          look.axis = value;
          keep();
        }),
        element("label", { class: "tf-control" }, [element("span", {}, "smoothing"), slider, percent]),
        element("label", { class: "tf-control" }, [log, element("span", {}, "log scale")]),
      ]),
      mixed,
      plot,
      empty,
    ]),
  );
  plot.hidden = true; // until there is something to draw

  let busy = false,
    wanted = false;
  async function draw() {
    if (busy) {
      wanted = true;
      return;
    }
    busy = true;
    try {
      await drawNow();
    } finally {
      busy = false;
    }
    if (wanted) {
      wanted = false;
      draw();
    }
  }
  async function drawNow() {
    const data = traces(config, look);
    empty.hidden = data.length > 0;
    const waiting = shownRuns().some(isActive);
    empty.textContent = waiting ? "The first point is on its way." : NOTHING;
    empty.classList.toggle("tf-waiting", waiting); // as high as the chart will be: what stands under it stays where it is
    const words = look.metric === "learning_rate" ? "" : notComparable(drawnRuns(), config.tasks);
    mixed.textContent = words;
    mixed.hidden = !words;
    plot.hidden = data.length === 0;
    if (data.length) {
      const Plotly = await loadPlotly();
      await Plotly.react(plot, data, layout(config, look), {
        displaylogo: false,
        responsive: false,
        showTips: false,
        plotlyServerURL: "", // a chart stays here: without this, "Share chart" sends it to Plotly's cloud
        modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendChartToCloud"],
      });
      plot.setAttribute("aria-label", summary(config, look));
    }
  }
  let drawn = null;
  onChange(() => {
    giveLooks(shownRuns(), config.palette);
    const active = state.runs.filter(isActive).length;
    chip.textContent =
      state.link === "reconnecting"
        ? "reconnecting…"
        : state.link === "refused"
          ? "The server was started anew: open the address it printed."
          : state.link === "connecting"
            ? "connecting…"
            : active
              ? `live · ${active} ${active === 1 ? "run" : "runs"}`
              : "idle";
    chip.dataset.state = state.link === "live" && active ? "running" : state.link === "refused" ? "failed" : state.link;
    const now =
      String(state.runs.some(isActive)) +
      shownRuns()
        .map((run) => `${run.run_id}:${run.state}:${run.name}:${state.series.get(run.run_id)?.id}`)
        .join();
    if (now !== drawn) {
      drawn = now;
      draw();
    } // an idle page does not redraw
  });
  new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  new ResizeObserver(() => {
    if (window.Plotly && plot.data && !plot.hidden) window.Plotly.Plots.resize(plot);
  }).observe(root);
  begin();
}

/** How the curves were looked at last; what is not known any more has its first value. */
function keptLook(config) {
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem(KEPT)) ?? {};
  } catch {
    /* not ours */
  }
  const number = Number(kept.smoothing);
  return {
    metric: kept.metric in config.metrics ? kept.metric : FIRST.metric,
    axis: kept.axis in config.axes ? kept.axis : FIRST.axis,
    smoothing: kept.smoothing !== undefined && number >= 0 && number <= 0.98 ? number : FIRST.smoothing,
    log: kept.log === true,
  };
}

function summary(config, look) {
  const parts = shownRuns().map((run) => {
    const last = state.series.get(run.run_id)?.step.at(-1);
    return last ? `${run.name || run.run_id}: ${Number(last[look.metric]).toPrecision(4)} at step ${last.step}` : "";
  });
  return `${config.metrics[look.metric]} by ${config.axes[look.axis]}. ${parts.filter(Boolean).join("; ")}`;
}
