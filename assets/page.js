// The page's own script: what each small HTML component of the page mounts.

import { mountAsk } from "./page/ask.js";
import { mountChart } from "./page/chart.js";
import { mountData } from "./page/data.js";
import { element, toast } from "./page/dom.js";
import { tidyForm } from "./page/form.js";
import { pollNow, post, show } from "./page/live.js";
import { mountHubData } from "./page/hub_data.js";
import { mountModels } from "./page/models.js";
import { nameSettings, plural } from "./page/notices.js";
import { mountPreview } from "./page/preview.js";
import { mountResults } from "./page/results.js";
import { mountRunning } from "./page/running.js";
import { mountRuns } from "./page/runs.js";

const DARK = "tuning-fork-dark";
let fillForm = null; // set by the component whose event the form listens to

function mountHeader(root, props) {
  nameSettings(props.config.labels, props.config.terms);
  const wanted = localStorage.getItem(DARK);
  if (wanted !== null) document.body.classList.toggle("dark", wanted === "yes");
  const toggle = element("button", { type: "button", class: "tf-button tf-theme", "aria-label": "Light or dark" }, "◐");
  toggle.addEventListener("click", () => {
    const dark = document.body.classList.toggle("dark");
    localStorage.setItem(DARK, dark ? "yes" : "no");
  });
  const file = element("input", {
    type: "file",
    accept: ".json,application/json",
    class: "tf-hidden",
    tabindex: -1,
    "aria-label": "settings file",
  });
  const open = element(
    "button",
    { type: "button", class: "tf-button tf-open", onclick: () => file.click() },
    "Open settings.json",
  );
  file.addEventListener("change", async () => {
    const chosen = file.files[0];
    file.value = "";
    if (!chosen) return;
    try {
      await openSettings(await chosen.text(), chosen.name);
    } catch (error) {
      toast(String(error.message));
    }
  });
  root.querySelector("header").append(open, file, toggle);
}

/** Settings of a file into the form; what is wrong with them is told, and the form then stays as it is. */
async function openSettings(text, name) {
  let settings;
  try {
    settings = JSON.parse(text.replace(/^\uFEFF/, ""));
  } catch {
    throw new Error(`${name} is not JSON.`);
  }
  await post("fork/settings", settings); // refuses what is wrong
  fillForm({ settings });
  toast(`The form now holds the settings of ${name}.`);
}

function mountLive(root, props, watch, trigger) {
  const chart = element("div"),
    runs = element("div");
  root.replaceChildren(element("div", { class: "tf-live" }, [chart, runs]));
  mountChart(chart, props.config);
  mountRuns(runs, props.config, trigger);
  fillForm = (value) => trigger("reuse", value);
  // Start answers with the id of the new run: show it now instead of at the next poll
  const take = () => {
    if (props.value?.run) show(props.value.run, true);
    const first = props.value?.first ?? 0;
    if (first) toast(`It waits in line: ${plural(first, "run")} ${first === 1 ? "goes" : "go"} first.`);
    for (const text of props.value?.told ?? []) toast(text, "Close", () => {}, true);
  };
  watch("value", take);
  take(); // what a form that was kept has to tell may be here already
  pollNow();
}

export function mount(kind, root, props, watch, trigger) {
  if (root.dataset.mounted) return;
  root.dataset.mounted = kind;
  if (kind === "header") mountHeader(root, props);
  if (kind === "preview") {
    mountPreview(root, props, watch, trigger, (value) => fillForm(value));
    tidyForm();
  }
  if (kind === "data") mountData(root, props, watch, trigger);
  if (kind === "models") mountModels(root, props, trigger);
  if (kind === "hub_data") mountHubData(root, props, trigger);
  if (kind === "live") mountLive(root, props, watch, trigger);
  if (kind === "running") mountRunning(root);
  if (kind === "results") mountResults(root);
  if (kind === "ask") mountAsk(root);
}
