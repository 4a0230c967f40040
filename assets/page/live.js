// The page's copy of the server's truth: which runs exist, and their points so far.
// Polls GET /fork/live with one cursor a run: 2 Hz while something trains, 1/3 Hz idle, not at all
// while the tab is hidden, and ever slower (up to 8 s) while the server is away.

import { sentence } from "./notices.js";
import { isRefused, OWN, sendJson } from "./requests.js";

const ACTIVE = new Set(["running", "queued", "paused"]);
const FAST = 500,
  IDLE = 3000,
  SLOWEST = 8000;

export const state = {
  epoch: null,
  version: null,
  runs: [], // newest first: the newest of the list, older ones that were asked for, those shown
  older: null, // number of the run behind which the list goes on at the server; null where it ends
  trouble: "", // why nothing can be stored just now, as the server says it
  series: new Map(), // run id -> {id, step: [], eval: []}
  shown: readAddress(),
  link: "connecting", // connecting | live | reconnecting | refused
};

const listeners = new Set();
let timer = null,
  failures = 0,
  asking = false,
  again = false;

export function onChange(listener) {
  listeners.add(listener);
  listener(state);
}
export function isActive(run) {
  return ACTIVE.has(run.state);
}
export function runById(id) {
  return state.runs.find((run) => run.run_id === id);
}
export function lastStep(id) {
  return state.series.get(id)?.step.at(-1);
}

function tell() {
  for (const listener of listeners) listener(state);
}

function readAddress() {
  const text = new URLSearchParams(location.search).get("runs");
  return text === null ? null : new Set(text.split(",").filter(Boolean));
}

function writeAddress() {
  const address = new URL(location.href);
  const ids = [...(state.shown ?? [])];
  if (ids.length) address.searchParams.set("runs", ids.join(","));
  else address.searchParams.delete("runs");
  history.replaceState(history.state, "", address.toString().replaceAll("%2C", ","));
}

export function show(id, wanted) {
  state.shown ??= new Set();
  if (wanted) state.shown.add(id);
  else state.shown.delete(id);
  writeAddress();
  tell();
  pollNow();
}

/** Ask the server now, e.g. after a button; calls during an open request are joined into one more. */
export function pollNow() {
  if (asking) {
    again = true;
    return;
  }
  clearTimeout(timer);
  poll();
}

/** Runs that the server has sent outside of the polls: older ones, found ones. */
export function addRuns(found) {
  const runs = new Map(state.runs.map((run) => [run.run_id, run]));
  for (const run of found) runs.set(run.run_id, run);
  state.runs = [...runs.values()].sort((one, two) => two.number - one.number);
}

/** The next part of the list. */
export async function loadOlder() {
  const answer = await get(`fork/runs?before=${state.older}`);
  addRuns(answer.runs);
  state.older = answer.older;
  tell();
}

/** Runs whose name or id holds a text, wherever they are in the list. */
export async function findRuns(text) {
  const { runs } = await get(`fork/runs?find=${encodeURIComponent(text)}`);
  addRuns(runs);
  tell();
}

function address() {
  // at first by name: a shown run may be older than the list reaches
  const shown = [...(state.shown ?? [])].filter((id) => state.version === null || runById(id));
  const ids = [...new Set([...shown, ...state.runs.filter(isActive).map((run) => run.run_id)])];
  const query = new URLSearchParams();
  query.set("cur", ids.map((id) => `${id}:${state.series.get(id)?.id ?? 0}`).join(","));
  if (state.version !== null) query.set("v", state.version);
  return "fork/live?" + query;
}

async function poll() {
  asking = true;
  let wait = SLOWEST;
  try {
    const answer = await fetch(address(), { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error(answer.status === 403 ? "refused" : `the server answered ${answer.status}`);
    const restart = take(await answer.json());
    failures = 0;
    state.link = "live";
    wait = restart ? 0 : state.runs.some(isActive) ? FAST : IDLE;
  } catch (error) {
    failures += 1;
    state.link = error.message === "refused" ? "refused" : "reconnecting";
    wait = Math.min(SLOWEST, FAST * 2 ** failures);
  }
  asking = false;
  tell();
  if (again) {
    again = false;
    wait = 0;
  }
  if (!document.hidden) timer = setTimeout(poll, wait);
}

/** Takes one answer in; true if there is more to fetch at once. */
function take(answer) {
  const known = new Set(state.runs.map((run) => run.run_id));
  let more = false;
  if (state.epoch !== null && answer.epoch !== state.epoch) {
    // another store: its list is the truth, and its cursors start from nothing
    state.series.clear();
    state.version = null;
    state.epoch = answer.epoch;
    return true;
  }
  state.epoch = answer.epoch;
  state.trouble = answer.trouble ?? "";
  const whole = answer.runs && !answer.removed;
  if (answer.runs || answer.removed) {
    if (whole) {
      state.runs = [];
      state.older = answer.older;
    }
    const gone = new Set(answer.removed ?? []);
    state.runs = state.runs.filter((run) => !gone.has(run.run_id));
    // what has changed far down the list is no news for this page
    addRuns(
      (answer.runs ?? []).filter(
        (run) => whole || known.has(run.run_id) || state.shown?.has(run.run_id) || run.number > (state.older ?? 0),
      ),
    );
    if (state.shown === null && state.runs.length) {
      // a first look: the newest runs, without pinning them into the address
      state.shown = new Set(state.runs.slice(0, 3).map((run) => run.run_id));
    }
    more = state.runs.some(
      (run) =>
        !known.has(run.run_id) && !answer.points?.[run.run_id] && (state.shown?.has(run.run_id) || isActive(run)),
    );
    const there = new Set(state.runs.map((run) => run.run_id));
    for (const id of state.series.keys()) if (!there.has(id)) state.series.delete(id);
  }
  state.version = answer.version;
  for (const [id, progress] of Object.entries(answer.progress ?? {})) Object.assign(runById(id) ?? {}, progress);
  for (const [id, points] of Object.entries(answer.points ?? {})) addPoints(id, points);
  return more;
}

function addPoints(id, points) {
  const have = state.series.get(id) ?? { id: 0, step: [], eval: [] };
  for (const kind of ["step", "eval"]) {
    for (const point of points[kind] ?? []) {
      // a later attempt walks over the same steps again: its points replace the earlier ones
      while (have[kind].length && have[kind].at(-1).step >= point.step) have[kind].pop();
      have[kind].push(point);
    }
  }
  have.id = points.id;
  state.series.set(id, have);
}

export async function get(path) {
  const answer = await fetch(path, { cache: "no-store", headers: OWN });
  if (!isRefused(answer)) return answer.json();
  const result = await answer.json().catch(() => ({}));
  throw new Error(result.message || `The server answered ${answer.status}.`);
}

async function send(path, body) {
  const answer = await sendJson(path, body);
  if (!isRefused(answer)) return answer;
  const result = await answer.json().catch(() => ({}));
  const problems = result.problems ?? [],
    told = problems.map(sentence).join(" ");
  const error = new Error(told || result.message || result.detail || `The server answered ${answer.status}.`);
  throw Object.assign(error, { problems });
}

export async function post(path, body) {
  return (await send(path, body)).json().catch(() => ({}));
}

/** Like `post` for an answer of JSON lines: each is told as soon as it is there. */
export async function postLines(path, body, onLine) {
  const reader = (await send(path, body)).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let end = false; !end;) {
    const { done, value } = await reader.read();
    end = done;
    const lines = (rest + (value ?? "")).split("\n");
    rest = lines.pop();
    for (const line of lines.filter(Boolean)) onLine(JSON.parse(line));
  }
}

let started = false;
export function begin() {
  if (started) return;
  started = true;
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else pollNow();
  });
  poll();
}
