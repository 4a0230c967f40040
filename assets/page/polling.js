// @ts-check
// Keeps the page's copy of the runs up to date: polls GET /fork/live with one cursor a run, 2 Hz while something
// trains, 1/3 Hz idle, not at all while the tab is hidden, and ever slower (up to 8 s) while the server is away.
//
// A lost server shows as "reconnecting" at the first request that fails: after half a second, or 3 s when idle, where
// its port is closed, and TIMEOUT later where it takes the request and answers nothing.

import { get, RefusedError } from "./requests.js";
import { addressShowing, applyAnswer, emptyState, isActive, liveQuery, mergeRuns, shownIn } from "./run_state.js";

/** @typedef {import("./run_state.js").State} State */

/** Milliseconds from an answer to the next request: while a run is active, otherwise, and at most after failures. */
const FAST = 500;
const IDLE = 3000;
const SLOWEST = 8000;
/** Milliseconds after which a request without an answer counts as a failure. */
const TIMEOUT = 10000;

export const state = emptyState();

/** @type {Set<(state: State) => void>} */
const listeners = new Set();
/** @type {number | undefined} */
let timer;
let begun = false;
let failures = 0;
let asking = false;
let askAgain = false;

/**
 * Calls the listener now and whenever the state may have changed: after each answer and each failed request, and after
 * `setShown`, `loadOlder` and `findRuns`. The first listener begins the polling.
 * @param {(state: State) => void} listener
 */
export function onChange(listener) {
  begin();
  listeners.add(listener);
  listener(state);
}

/** @param {string} id */
export function runById(id) {
  return state.runs.find((run) => run.run_id === id);
}

/**
 * The last point of a run's training.
 * @param {string} id
 */
export function lastPoint(id) {
  return state.series.get(id)?.step.at(-1);
}

/**
 * Draws a run or leaves it out, here and in the page's address.
 * @param {string} id
 * @param {boolean} shown
 */
export function setShown(id, shown) {
  state.shown ??= new Set();
  if (shown) state.shown.add(id);
  else state.shown.delete(id);
  history.replaceState(history.state, "", addressShowing(location.href, state.shown));
  notifyListeners();
  pollNow();
}

/** Asks the server now, for instance after a button. Calls during an open request are merged into one more after it. */
export function pollNow() {
  if (asking) {
    askAgain = true;
    return;
  }
  clearTimeout(timer);
  poll();
}

/** Asks for the next part of the list. */
export async function loadOlder() {
  const answer = await get(`fork/runs?before=${state.older}`);
  mergeRuns(state, answer.runs);
  state.older = answer.older;
  notifyListeners();
}

/**
 * Asks for the runs whose name or id holds a text, wherever they are in the list.
 * @param {string} text
 */
export async function findRuns(text) {
  const { runs } = await get(`fork/runs?find=${encodeURIComponent(text)}`);
  mergeRuns(state, runs);
  notifyListeners();
}

/** Calls every listener. One that fails is a fault of the page: it is reported, and ends neither others nor polling. */
function notifyListeners() {
  for (const listener of listeners) {
    try {
      listener(state);
    } catch (error) {
      console.error(error);
    }
  }
}

async function poll() {
  asking = true;
  const wait = await ask();
  asking = false;
  notifyListeners();
  const pause = askAgain ? 0 : wait;
  askAgain = false;
  if (!document.hidden) timer = setTimeout(poll, pause);
}

/** One request and its answer, applied to the state; returns the milliseconds to wait before the next one. */
async function ask() {
  let answer;
  try {
    answer = await get(`fork/live?${liveQuery(state)}`, { signal: AbortSignal.timeout(TIMEOUT) });
  } catch (error) {
    failures += 1;
    state.link = error instanceof RefusedError && error.status === 403 ? "refused" : "reconnecting";
    return Math.min(SLOWEST, FAST * 2 ** failures);
  }
  failures = 0;
  state.link = "live";
  let more = false;
  try {
    more = applyAnswer(state, answer);
  } catch (error) {
    console.error(error); // a fault of the page: the server has answered
  }
  return more ? 0 : state.runs.some(isActive) ? FAST : IDLE;
}

function begin() {
  if (begun) return;
  begun = true;
  state.shown = shownIn(location.search);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else pollNow();
  });
  poll();
}
