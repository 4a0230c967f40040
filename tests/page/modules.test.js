// Every module of the page can be imported where there is no page: nothing of it runs before it is mounted.

import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { test } from "node:test";

const ASSETS = new URL("../../assets/", import.meta.url);

test("no module needs a document, a window or an address when it is imported", async () => {
  assert.equal(typeof globalThis.document, "undefined");
  assert.equal(typeof globalThis.window, "undefined");
  const files = (await readdir(new URL("page/", ASSETS))).filter((name) => name.endsWith(".js"));
  assert.ok(files.length > 20);
  for (const name of files) await import(new URL(`page/${name}`, ASSETS).href);
  const { mount } = await import(new URL("page.js", ASSETS).href);
  assert.equal(typeof mount, "function");
});
