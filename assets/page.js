// @ts-check
// The page's own script: what each small HTML component of the page mounts.

import { mountAsk } from "./page/ask.js";
import { mountChart } from "./page/chart.js";
import { mountData } from "./page/data.js";
import { element, toast } from "./page/dom.js";
import { tidyForm } from "./page/form.js";
import { plural } from "./page/format.js";
import { mountHeader } from "./page/header.js";
import { mountHubData } from "./page/hub_data.js";
import { mountModels } from "./page/models.js";
import { pollNow, setShown } from "./page/polling.js";
import { mountPreview } from "./page/preview.js";
import { mountResults } from "./page/results.js";
import { mountRunning } from "./page/running.js";
import { mountRuns } from "./page/runs.js";

/**
 * What Gradio hands to a component: its value, to be watched, and a way to fire its events.
 * @typedef {object} Component
 * @property {HTMLElement} root
 * @property {any} props
 * @property {(name: string, onNewValue: () => void) => void} watch
 * @property {(name: string, detail: any) => void} trigger
 */

/**
 * Puts settings into the form; set by the component whose event the form listens to.
 * @type {(value: any) => void}
 */
let fillForm = () => {};

/** @param {Component} component */
function mountLive({ root, props, watch, trigger }) {
  const chart = element("div");
  const runs = element("div");
  root.replaceChildren(element("div", { class: "tf-live" }, [chart, runs]));
  mountChart(chart, props.config);
  mountRuns(runs, props.config, trigger);
  fillForm = (value) => trigger("reuse", value);
  const apply = () => applyStarted(props.value);
  watch("value", apply);
  apply(); // what a stored form has to tell may be here already
  pollNow();
}

/**
 * Shows the run that Start has made now instead of at the next poll, and says what there is to say of it.
 * @param {{ run?: string | null, first?: number, told?: string[] } | undefined} started
 */
function applyStarted(started) {
  if (started?.run) setShown(started.run, true);
  const first = started?.first ?? 0;
  if (first) toast(`It waits in line: ${plural(first, "run")} ${first === 1 ? "goes" : "go"} first.`);
  for (const text of started?.told ?? []) toast(text, "Close", () => {}, true);
}

/**
 * The sections of the page by the name that tuning/ui mounts them under.
 * @type {Record<string, (component: Component) => void>}
 */
const SECTIONS = {
  header: ({ root, props }) => mountHeader(root, props.config, (value) => fillForm(value)),
  preview: ({ root, props, watch, trigger }) => {
    mountPreview(root, props, watch, trigger, (value) => fillForm(value));
    tidyForm();
  },
  data: ({ root, props, watch, trigger }) => mountData(root, props, watch, trigger),
  models: ({ root, props, trigger }) => mountModels(root, props, trigger),
  hub_data: ({ root, props, trigger }) => mountHubData(root, props, trigger),
  live: mountLive,
  running: ({ root }) => mountRunning(root),
  results: ({ root }) => mountResults(root),
  ask: ({ root }) => mountAsk(root),
};

/**
 * Mounts a section in its component, once.
 * @param {string} kind
 * @param {HTMLElement} root
 * @param {any} props
 * @param {Component["watch"]} watch
 * @param {Component["trigger"]} trigger
 */
export function mount(kind, root, props, watch, trigger) {
  if (root.dataset.mounted) return;
  root.dataset.mounted = kind;
  SECTIONS[kind]({ root, props, watch, trigger });
}
