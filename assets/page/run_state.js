// @ts-check
// The page's copy of the runs and their points, and how an answer of GET /fork/live changes it. Nothing here asks the
// server or draws.

/** @typedef {import("./shapes").RunLine} RunLine */
/** @typedef {import("./shapes").LiveAnswer} LiveAnswer */
/** @typedef {import("./shapes").Points} Points */
/** @typedef {import("./shapes").StepEvent} StepEvent */
/** @typedef {import("./shapes").EvalEvent} EvalEvent */

/**
 * The points of a run, in the order of their steps; `id` is the cursor: the store's number of the last of them.
 * @typedef {{ id: number, step: StepEvent[], eval: EvalEvent[] }} Series
 */

/**
 * @typedef {object} State
 * @property {string | null} epoch which store the server reads
 * @property {number | null} version of the list of runs
 * @property {RunLine[]} runs newest first: the newest of the list, older ones that were asked for, those shown
 * @property {number | null} older number of the run before which the server has more; null where the list ends
 * @property {string} trouble why nothing can be stored just now, as the server says it
 * @property {Map<string, Series>} series by run id
 * @property {Set<string> | null} shown ids of the runs that are drawn; null until the first list is here
 * @property {"connecting" | "live" | "reconnecting" | "refused"} link
 */

const ACTIVE_STATES = new Set(["running", "queued", "paused"]);
const FIRST_SHOWN = 3;

/** @returns {State} */
export function emptyState() {
  return {
    epoch: null,
    version: null,
    runs: [],
    older: null,
    trouble: "",
    series: new Map(),
    shown: null,
    link: "connecting",
  };
}

/** @param {RunLine} run */
export function isActive(run) {
  return ACTIVE_STATES.has(run.state);
}

/**
 * @param {State} state
 * @param {RunLine} run
 */
export function isShown(state, run) {
  return Boolean(state.shown?.has(run.run_id));
}

/**
 * Takes in runs of the server beside those that are there: changed, older or found ones.
 * @param {State} state
 * @param {RunLine[]} runs
 */
export function mergeRuns(state, runs) {
  const byId = new Map(state.runs.map((run) => [run.run_id, run]));
  for (const run of runs) byId.set(run.run_id, run);
  state.runs = [...byId.values()].sort((one, two) => two.number - one.number);
}

/**
 * Takes in one answer of GET /fork/live; true where there is more to ask for at once.
 * @param {State} state
 * @param {LiveAnswer} answer
 */
export function takeAnswer(state, answer) {
  if (state.epoch !== null && answer.epoch !== state.epoch) {
    // another store: its list is the truth, and its cursors start from nothing
    state.series.clear();
    state.version = null;
    state.epoch = answer.epoch;
    return true;
  }
  state.epoch = answer.epoch;
  state.trouble = answer.trouble ?? "";
  const more = Boolean(answer.runs || answer.removed) && takeList(state, answer);
  state.version = answer.version;
  for (const run of state.runs) Object.assign(run, answer.progress?.[run.run_id]);
  for (const [id, points] of Object.entries(answer.points ?? {})) {
    state.series.set(id, addPoints(state.series.get(id), points));
  }
  return more;
}

/**
 * Takes in what has changed in the list; true where a run has come whose points were not asked for.
 * @param {State} state
 * @param {LiveAnswer} answer
 */
function takeList(state, answer) {
  const before = new Set(state.runs.map((run) => run.run_id));
  const complete = Boolean(answer.runs) && !answer.removed;
  if (complete) {
    state.runs = [];
    state.older = answer.older ?? null;
  }
  const removed = new Set(answer.removed ?? []);
  state.runs = state.runs.filter((run) => !removed.has(run.run_id));
  // what has changed far down the list is not for this page
  const isListed = (/** @type {RunLine} */ run) =>
    complete || before.has(run.run_id) || isShown(state, run) || run.number > (state.older ?? 0);
  mergeRuns(state, (answer.runs ?? []).filter(isListed));
  if (state.shown === null && state.runs.length) {
    // a first look: the newest runs, without pinning them into the address
    state.shown = new Set(state.runs.slice(0, FIRST_SHOWN).map((run) => run.run_id));
  }
  const now = new Set(state.runs.map((run) => run.run_id));
  for (const id of state.series.keys()) if (!now.has(id)) state.series.delete(id);
  return state.runs.some(
    (run) => !before.has(run.run_id) && !answer.points?.[run.run_id] && (isShown(state, run) || isActive(run)),
  );
}

/**
 * A run's points with those that came after them. A later attempt makes the same steps again: its points replace the
 * earlier ones from there on, and a point that comes twice stands once.
 * @param {Series | undefined} series
 * @param {Points} points
 * @returns {Series}
 */
export function addPoints(series, points) {
  const { step, eval: evaluations } = series ?? { step: [], eval: [] };
  appendByStep(step, points.step ?? []);
  appendByStep(evaluations, points.eval ?? []);
  return { id: points.id, step, eval: evaluations };
}

/**
 * @template {{ step: number }} Point
 * @param {Point[]} points
 * @param {Point[]} later
 */
function appendByStep(points, later) {
  for (const point of later) {
    while (points.length && points[points.length - 1].step >= point.step) points.pop();
    points.push(point);
  }
}

/**
 * The query of GET /fork/live that asks for what this page lacks: a cursor for each run that is shown or active.
 * @param {State} state
 */
export function liveQuery(state) {
  const there = new Set(state.runs.map((run) => run.run_id));
  // at first by name: a shown run may be older than the list reaches
  const shown = [...(state.shown ?? [])].filter((id) => state.version === null || there.has(id));
  const ids = [...new Set([...shown, ...state.runs.filter(isActive).map((run) => run.run_id)])];
  const query = new URLSearchParams();
  query.set("cur", ids.map((id) => `${id}:${state.series.get(id)?.id ?? 0}`).join(","));
  if (state.version !== null) query.set("v", String(state.version));
  return query.toString();
}

/**
 * The ids of the runs that an address shows; null where it names none.
 * @param {string} search
 */
export function shownIn(search) {
  const text = new URLSearchParams(search).get("runs");
  return text === null ? null : new Set(text.split(",").filter(Boolean));
}

/**
 * An address that shows these runs.
 * @param {string} href
 * @param {Iterable<string>} ids
 */
export function addressShowing(href, ids) {
  const address = new URL(href);
  const text = [...ids].join(",");
  if (text) address.searchParams.set("runs", text);
  else address.searchParams.delete("runs");
  return address.toString().replaceAll("%2C", ",");
}
