// Requests to a server of node's own: answers, refusals, and answers that arrive line by line.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { get, getOrNull, post, postLines, RefusedError } from "../../assets/page/requests.js";

/** @type {Record<string, (request: any, response: any) => void>} */
const ROUTES = {
  "/plain": (request, response) => response.end(JSON.stringify({ page: request.headers["tuning-fork-page"] })),
  "/refused": (_, response) => {
    response.setHeader("tuning-fork-refused", "422");
    response.end(
      JSON.stringify({
        problems: [
          { field: "seed", message: "No." },
          { field: "r", message: "Nor this." },
        ],
      }),
    );
  },
  "/missing": (_, response) => response.writeHead(404).end(JSON.stringify({ message: "no run r9" })),
  "/broken": (_, response) => response.writeHead(500).end("<html>"),
  "/echo": async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    response.end(Buffer.concat(chunks));
  },
  "/lines": async (_, response) => {
    for (const piece of ['{"a": 1}\n{"a"', ': "é', '"}\n', '{"a": 3}\n']) {
      response.write(piece);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    response.end();
  },
};

const server = createServer((request, response) => ROUTES[String(request.url)](request, response));
let host = "";

before(async () => {
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(null)));
  host = `http://127.0.0.1:${/** @type {any} */ (server.address()).port}`;
});
after(() => server.close());

test("the page says to the server that it is the page", async () => {
  assert.deepEqual(await get(`${host}/plain`), { page: "1" });
});

test("a refusal is an error with its status, its answer and a sentence a problem", async () => {
  await assert.rejects(post(`${host}/refused`, {}), (error) => {
    assert.ok(error instanceof RefusedError);
    assert.equal(error.status, 422);
    assert.equal(error.message, "No. Nor this.");
    assert.deepEqual(
      error.problems.map(({ field }) => field),
      ["seed", "r"],
    );
    return true;
  });
});

test("an answer with another status is refused with its message, or with the status where it has none", async () => {
  await assert.rejects(get(`${host}/missing`), { status: 404, message: "no run r9" });
  await assert.rejects(get(`${host}/broken`), { status: 500, message: "The server answered 500.", answer: null });
});

test("what need not be there is null where it is not", async () => {
  assert.equal(await getOrNull(`${host}/missing`), null);
  assert.equal(await getOrNull("http://127.0.0.1:1/nobody"), null);
  assert.deepEqual(await getOrNull(`${host}/plain`), { page: "1" });
});

test("a body is sent as JSON, and none as an empty object", async () => {
  assert.deepEqual(await post(`${host}/echo`, { a: [1] }), { a: [1] });
  assert.deepEqual(await post(`${host}/echo`), {});
});

test("lines are handed on one by one, however they are cut on their way", async () => {
  /** @type {any[]} */
  const lines = [];
  await postLines(`${host}/lines`, {}, (line) => lines.push(line.a));
  assert.deepEqual(lines, [1, "é", 3]);
});
