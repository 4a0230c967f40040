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
 * @property {string | null} storeId which store the server reads; `epoch` in its answers
 * @property {number | null} listVersion version of the list of runs; `version` in answers, `v` in the query
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
    storeId: null,
    listVersion: null,
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
 * Whether a run can be asked. One that has not ended answers with what it has learned so far; one that failed may have
 * left nothing.
 * @param {RunLine} run
 */
export function canAnswer(run) {
  return ["finished", "cancelled"].includes(run.state) || (["running", "paused"].includes(run.state) && run.step > 0);
}

/**
 * Whether a run can be asked with its best weights, which are put by when it ends.
 * @param {RunLine} run
 */
export function canAnswerWithBest(run) {
  return canAnswer(run) && !isActive(run);
}

/**
 * @param {State} state
 * @param {RunLine} run
 */
export function isShown(state, run) {
  return Boolean(state.shown?.has(run.run_id));
}

/**
 * Adds runs of the server to those that are there, or replaces them: changed, older or found ones.
 * @param {State} state
 * @param {RunLine[]} runs
 */
export function mergeRuns(state, runs) {
  const byId = new Map(state.runs.map((run) => [run.run_id, run]));
  for (const run of runs) byId.set(run.run_id, run);
  state.runs = [...byId.values()].sort((one, two) => two.number - one.number);
}

/**
 * Applies one answer of GET /fork/live to the state; true where there is more to ask for at once.
 * @param {State} state
 * @param {LiveAnswer} answer
 */
export function applyAnswer(state, answer) {
  if (state.storeId !== null && answer.epoch !== state.storeId) {
    // another store: its list is the truth, and its cursors start from nothing
    state.series.clear();
    state.listVersion = null;
    state.storeId = answer.epoch;
    return true;
  }
  state.storeId = answer.epoch;
  state.trouble = answer.trouble ?? "";
  const more = Boolean(answer.runs || answer.removed) && applyList(state, answer);
  state.listVersion = answer.version;
  for (const run of state.runs) Object.assign(run, answer.progress?.[run.run_id]);
  for (const [id, points] of Object.entries(answer.points ?? {})) {
    state.series.set(id, addPoints(state.series.get(id), points));
  }
  return more;
}

/**
 * Applies what has changed in the list; true where a run has come whose points were not asked for.
 *
 * The protocol: `runs` without `removed` is the whole beginning of the list, which replaces the one here. With
 * `removed`, even an empty one, `runs` are only those that have changed since the version that was asked for.
 * @param {State} state
 * @param {LiveAnswer} answer
 */
function applyList(state, answer) {
  const knownIds = new Set(state.runs.map((run) => run.run_id));
  const complete = Boolean(answer.runs) && !answer.removed;
  if (complete) {
    state.runs = [];
    state.older = answer.older ?? null;
  }
  const removed = new Set(answer.removed ?? []);
  state.runs = state.runs.filter((run) => !removed.has(run.run_id));
  // what has changed far down the list is not for this page
  const isListed = (/** @type {RunLine} */ run) =>
    complete || knownIds.has(run.run_id) || isShown(state, run) || run.number > (state.older ?? 0);
  mergeRuns(state, (answer.runs ?? []).filter(isListed));
  if (state.shown === null && state.runs.length) {
    // a first look: the newest runs, without writing ?runs= into the address
    state.shown = new Set(state.runs.slice(0, FIRST_SHOWN).map((run) => run.run_id));
  }
  const listedIds = new Set(state.runs.map((run) => run.run_id));
  for (const id of state.series.keys()) if (!listedIds.has(id)) state.series.delete(id);
  return state.runs.some(
    (run) => !knownIds.has(run.run_id) && !answer.points?.[run.run_id] && (isShown(state, run) || isActive(run)),
  );
}

/**
 * A run's points with those that came after them, as a new object with the arrays of `series`, which are changed. A
 * later attempt makes the same steps again: its points replace the earlier ones from there on, and a point that comes
 * twice stands once.
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
  const knownIds = new Set(state.runs.map((run) => run.run_id));
  // at first by name: a shown run may be older than the list reaches
  const shown = [...(state.shown ?? [])].filter((id) => state.listVersion === null || knownIds.has(id));
  const ids = [...new Set([...shown, ...state.runs.filter(isActive).map((run) => run.run_id)])];
  const query = new URLSearchParams();
  query.set("cur", ids.map((id) => `${id}:${state.series.get(id)?.id ?? 0}`).join(","));
  if (state.listVersion !== null) query.set("v", String(state.listVersion));
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
