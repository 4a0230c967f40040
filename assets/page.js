// The page's own script: what each small HTML component of the page mounts.

import { mountAsk } from "./page/ask.js";
import { mountChart } from "./page/chart.js";
import { mountData } from "./page/data.js";
import { element } from "./page/dom.js";
import { tidyForm } from "./page/form.js";
import { pollNow, show } from "./page/live.js";
import { mountPreview } from "./page/preview.js";
import { mountRuns } from "./page/runs.js";

const DARK = "tuning-fork-dark";

function mountHeader(root) {
  const wanted = localStorage.getItem(DARK);
  if (wanted !== null) document.body.classList.toggle("dark", wanted === "yes");
  const toggle = element("button", { type: "button", class: "tf-button tf-theme", "aria-label": "Light or dark" }, "◐");
  toggle.addEventListener("click", () => {
    const dark = document.body.classList.toggle("dark");
    localStorage.setItem(DARK, dark ? "yes" : "no");
  });
  root.querySelector("header").append(toggle);
}

function mountLive(root, props, watch, trigger) {
  const chart = element("div"), runs = element("div");
  root.replaceChildren(element("div", { class: "tf-live" }, [chart, runs]));
  mountChart(chart, props.config);
  mountRuns(runs, props.config, trigger);
  // Start answers with the id of the new run: show it now instead of at the next poll
  watch("value", () => { if (props.value?.run) show(props.value.run, true); });
  pollNow();
}

export function mount(kind, root, props, watch, trigger) {
  if (root.dataset.mounted) return;
  root.dataset.mounted = kind;
  if (kind === "header") mountHeader(root);
  if (kind === "preview") { mountPreview(root, props, watch); tidyForm(); }
  if (kind === "data") mountData(root, props, watch, trigger);
  if (kind === "live") mountLive(root, props, watch, trigger);
  if (kind === "ask") mountAsk(root, props.config);
}
