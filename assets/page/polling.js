// @ts-check
// Keeps the page's copy of the runs up to date: polls GET /fork/live with one cursor a run, 2 Hz while something
// trains, 1/3 Hz idle, not at all while the tab is hidden, and ever slower (up to 8 s) while the server is away.

import { get, RefusedError } from "./requests.js";
import { addressShowing, emptyState, isActive, liveQuery, mergeRuns, shownIn, takeAnswer } from "./run_state.js";

/** @typedef {import("./run_state.js").State} State */

/** Milliseconds between two questions. */
const FAST = 500;
const IDLE = 3000;
const SLOWEST = 8000;
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
 * Calls the listener now and after each answer; the first listener begins the polling.
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
export function lastStep(id) {
  return state.series.get(id)?.step.at(-1);
}

/**
 * Draws a run or leaves it out, here and in the page's address.
 * @param {string} id
 * @param {boolean} shown
 */
export function show(id, shown) {
  state.shown ??= new Set();
  if (shown) state.shown.add(id);
  else state.shown.delete(id);
  history.replaceState(history.state, "", addressShowing(location.href, state.shown));
  notifyListeners();
  pollNow();
}

/** Asks the server now, for instance after a button; calls during an open request are joined into one more. */
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

function notifyListeners() {
  for (const listener of listeners) listener(state);
}

async function poll() {
  asking = true;
  let wait = SLOWEST;
  try {
    const answer = await get(`fork/live?${liveQuery(state)}`, { signal: AbortSignal.timeout(TIMEOUT) });
    const more = takeAnswer(state, answer);
    failures = 0;
    state.link = "live";
    wait = more ? 0 : state.runs.some(isActive) ? FAST : IDLE;
  } catch (error) {
    failures += 1;
    state.link = error instanceof RefusedError && error.status === 403 ? "refused" : "reconnecting";
    wait = Math.min(SLOWEST, FAST * 2 ** failures);
  }
  asking = false;
  notifyListeners();
  if (askAgain) {
    askAgain = false;
    wait = 0;
  }
  if (!document.hidden) timer = setTimeout(poll, wait);
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
