// Polling a server of node's own: faults of the page are reported and end nothing, faults of the server show.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { onChange, pollNow, state } from "../../assets/page/polling.js";

/** @typedef {import("../../assets/page/run_state.js").State} State */

const ANSWER = { epoch: "e1", version: 1, progress: {}, points: {}, removed: [], runs: [] };

/** @type {any} the next answers; null breaks the connection */
let answer = ANSWER;
const server = createServer((_, response) => {
  if (answer === null) response.destroy();
  else response.end(JSON.stringify(answer));
});

before(async () => {
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(null)));
  const host = `http://127.0.0.1:${/** @type {any} */ (server.address()).port}/`;
  // what a browser has: an address, a tab that is seen, and requests relative to the address
  const fetchAbsolute = globalThis.fetch;
  Object.assign(globalThis, {
    location: new URL(host),
    document: { hidden: false, addEventListener() {} },
    fetch: (/** @type {string} */ path, /** @type {RequestInit} */ options) =>
      fetchAbsolute(new URL(path, host), options),
  });
});
after(() => {
  Object.assign(globalThis.document, { hidden: true }); // no request follows the last one
  server.closeAllConnections();
  server.close();
});

/**
 * The next state that a listener is called with after a request.
 * @returns {Promise<State>}
 */
function nextState() {
  return new Promise((resolve) => {
    let calls = 0;
    onChange((changed) => {
      calls += 1;
      if (calls > 1) resolve(changed); // the first call is that of onChange itself
    });
    pollNow();
  });
}

test("a server that answers is live, one that breaks off is being reconnected to, and comes back", async () => {
  assert.equal((await nextState()).link, "live");
  answer = null;
  assert.equal((await nextState()).link, "reconnecting");
  answer = ANSWER;
  assert.equal((await nextState()).link, "live");
});

test("an answer that the page cannot apply is reported, and is no lost connection", async (context) => {
  const reported = context.mock.method(console, "error", () => {});
  answer = { ...ANSWER, runs: 5 };
  assert.equal((await nextState()).link, "live");
  assert.equal(reported.mock.callCount(), 1);
  answer = ANSWER;
});

test("a listener that fails is reported, and the others are called and the polling goes on", async (context) => {
  const reported = context.mock.method(console, "error", () => {});
  let [calls, isFaulty] = [0, true];
  onChange(() => {
    calls += 1;
    if (calls > 1 && isFaulty) throw new Error("a fault of the page");
  });
  assert.equal((await nextState()).link, "live");
  answer = { ...ANSWER, version: 2 };
  await nextState();
  assert.equal(state.listVersion, 2);
  assert.equal(reported.mock.callCount(), calls - 1);
  assert.ok(calls > 2);
  isFaulty = false;
});
