// @ts-check
// What a run's row says of it in words: its progress, its method, where it came from, what it can be compared with.

import { duration } from "./format.js";

/** @typedef {import("./shapes").RecoverySource} RecoverySource */
/** @typedef {import("./shapes").RunLine} RunLine */
/** @typedef {import("./shapes").StepEvent} StepEvent */
/** @typedef {(id: string) => RunLine | undefined} FindRun */

const MOST_LINKS = 20;
const MOST_NAMES = 4;

/** @param {RunLine} run */
export function nameOf(run) {
  return run.name || run.run_id;
}

/**
 * The id of the run whose result this one began with; nothing where it began with a base model.
 * @param {RunLine} run
 */
export function baseRunId(run) {
  const { model } = run.settings;
  return model.startsWith("run:") ? model.slice(4).split("/")[0] : ""; // run:ID, or run:ID/best
}

/**
 * "from …": which run's result this one began with.
 * @param {RunLine} run
 * @param {FindRun} find
 */
export function lineage(run, find) {
  const id = baseRunId(run);
  return id ? `from ${find(id)?.name || id}` : "";
}

/**
 * The base model under a chain of runs that each began with the result of another.
 * @param {RunLine} run
 * @param {FindRun} find
 * @returns {string}
 */
export function baseModel(run, find, links = 0) {
  const base = find(baseRunId(run));
  return base && links < MOST_LINKS ? baseModel(base, find, links + 1) : run.settings.model;
}

/**
 * A sentence where curves of different tasks, data or base models lie on one axis; else nothing.
 * @param {RunLine[]} runs
 * @param {Record<string, string>} taskNames
 * @param {FindRun} find
 */
export function notComparable(runs, taskNames, find) {
  const different = (/** @type {(run: RunLine) => string} */ of) => {
    const values = [...new Set(runs.map(of))];
    return values.length > 1 ? values : null;
  };
  const tasks = different((run) => run.settings.task);
  const models = different((run) => baseModel(run, find));
  const parts = [];
  if (tasks) parts.push(`tasks (${quoted(tasks.map((task) => taskNames[task] ?? task))})`);
  if (different((run) => run.settings.data.source)) {
    parts.push(`data (${quoted([...new Set(runs.map((run) => run.data_name ?? run.settings.data.source))])})`);
  }
  if (models) parts.push(`base models (${quoted(models)})`);
  if (!parts.length) return "";
  return `These curves are of different ${parts.join(" and ")}: the height of one says nothing about another.`;
}

/** @param {string[]} names */
function quoted(names) {
  const shown = names.slice(0, MOST_NAMES).map((name) => `“${name}”`);
  return shown.join(", ") + (names.length > MOST_NAMES ? " …" : "");
}

/**
 * Whether the run makes updates: prompting and retrieval make none.
 * @param {RunLine} run
 */
export function trains(run) {
  return run.plan.derived.trainable_parameters !== 0;
}

/**
 * The updates that have been made, as the list or the curve knows them.
 * @param {RunLine} run
 * @param {StepEvent | undefined} last
 */
export function stepsMade(run, last) {
  return Math.max(last?.step ?? 0, run.step ?? 0);
}

/**
 * " · 9 s left", from the mean time of an update so far; nothing before the first.
 * @param {RunLine} run
 * @param {StepEvent | undefined} last
 */
export function timeLeft(run, last) {
  const step = stepsMade(run, last);
  const total = run.total_steps ?? 0;
  if (run.state !== "running" || !last?.seconds || step >= total) return "";
  return ` · ${duration((last.seconds / last.step) * (total - step))} left`;
}

/** @param {RunLine} run */
export function queueText(run) {
  return run.place ? `place ${run.place} in the queue` : "loading libraries";
}

/**
 * What the run does now, or why it ended.
 * @param {RunLine} run
 * @param {StepEvent | undefined} last
 */
export function phaseText(run, last) {
  if (run.state === "queued") return queueText(run);
  if (run.state === "failed" || run.state === "interrupted") return run.message || "";
  if (run.state !== "running") return "";
  return run.phase || (last || run.step ? "" : "starting");
}

/**
 * Which stored weights the result of a run that was cut off is made from.
 * @param {RecoverySource | null | undefined} source
 */
export function sourceText(source) {
  if (!source) return "";
  const which = source.kind === "best" ? "its best evaluation" : "its last checkpoint";
  return `weights of update ${source.step.toLocaleString("en")}, ${which}`;
}

/**
 * The method with its rank.
 * @param {RunLine} run
 * @param {Record<string, string>} titles
 */
export function methodText(run, titles) {
  const { method } = run.settings;
  const title = titles[method.name] ?? method.name;
  return method.r ? `${title} r${method.r}` : title;
}

/**
 * Settings that have no column of their own: they are named on each run where not all runs have them alike.
 * @type {((run: RunLine) => string | undefined)[]}
 */
const OTHER_SETTINGS = [
  ({ settings }) => settings.schedule?.name && `${settings.schedule.name} schedule`,
  ({ settings }) => (settings.seed === undefined ? undefined : `seed ${settings.seed}`),
  ({ settings }) => settings.optimizer?.name,
  ({ settings }) => settings.precision,
  ({ settings }) => (settings.method.dropout === undefined ? undefined : `dropout ${settings.method.dropout}`),
];

/**
 * Those of the settings without a column in which these runs differ: functions that give a run's words for one.
 * @param {RunLine[]} runs
 */
export function differingSettings(runs) {
  return OTHER_SETTINGS.filter((words) => new Set(runs.map(words).filter(Boolean)).size > 1);
}

/**
 * How far the estimate was from the measured peak, in percent of the peak; null where one of them is missing, and for a
 * run that has not finished, whose highest moment may not have come.
 * @param {RunLine} run
 */
export function estimateError(run) {
  const expected = run.estimate?.total_bytes;
  const measured = run.state === "finished" ? run.peak_bytes : null;
  return expected && measured ? 100 * (expected / measured - 1) : null;
}
