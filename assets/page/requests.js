// @ts-check
// Every request of the page to its server. What a person typed may be refused: that is an answer, and the browser's
// console, where faults of the page stand in red, has nothing to say of it. Other programs get the status, 422 or 404.

import { sentence } from "./setting_names.js";

/** @typedef {import("./shapes").Problem} Problem */

/** Says that the page itself asks: a refusal is then answered 200, with the status of programs in a header. */
const PAGE = { "tuning-fork-page": "1" };
const REFUSED = "tuning-fork-refused";

/** The server has answered, and refuses: the message is for a person, the problems name their fields. */
export class RefusedError extends Error {
  /**
   * @param {number} status
   * @param {any} answer its JSON; null where it is none
   */
  constructor(status, answer) {
    super(refusalText(status, answer));
    this.status = status;
    this.answer = answer;
    /** @type {Problem[]} */
    this.problems = answer?.problems ?? [];
  }
}

/**
 * @param {number} status
 * @param {any} answer
 */
function refusalText(status, answer) {
  const sentences = (answer?.problems ?? []).map(sentence).join(" ");
  return sentences || answer?.message || answer?.detail || `The server answered ${status}.`;
}

/**
 * The server's answer. Raises RefusedError where it refuses, and fetch's own errors where it cannot be reached.
 * @param {string} path
 * @param {RequestInit} options
 */
async function ask(path, options) {
  const answer = await fetch(path, { ...options, headers: { ...options.headers, ...PAGE } });
  const refused = answer.headers.get(REFUSED);
  if (answer.ok && refused === null) return answer;
  throw new RefusedError(Number(refused ?? answer.status), await answer.json().catch(() => null));
}

/**
 * What a path answers. Raises RefusedError.
 * @param {string} path
 * @param {{ signal?: AbortSignal }} options
 * @returns {Promise<any>}
 */
export async function get(path, options = {}) {
  return (await ask(path, { cache: "no-store", ...options })).json();
}

/**
 * What a path answers; null where the server is away, which the page says elsewhere, or where there is no such thing.
 * @param {string} path
 * @returns {Promise<any>}
 */
export function getOrNull(path) {
  return get(path).catch(() => null);
}

/**
 * @param {string} path
 * @param {any} body
 * @param {{ signal?: AbortSignal }} options
 */
function send(path, body, options = {}) {
  const headers = { "content-type": "application/json" };
  return ask(path, { method: "POST", headers, body: JSON.stringify(body ?? {}), ...options });
}

/**
 * What the server answers to a JSON object; an empty object where it answers no JSON. Raises RefusedError.
 * @param {string} path
 * @param {any} [body]
 * @param {{ signal?: AbortSignal }} [options]
 * @returns {Promise<any>}
 */
export async function post(path, body, options) {
  return (await send(path, body, options)).json().catch(() => ({}));
}

/**
 * Like `post` for an answer of JSON lines: `onLine` is called with each as soon as it is there.
 * @param {string} path
 * @param {any} body
 * @param {(line: any) => void} onLine
 */
export async function postLines(path, body, onLine) {
  const answer = await send(path, body);
  const reader = /** @type {ReadableStream} */ (answer.body).pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let ended = false; !ended;) {
    const { done, value } = await reader.read();
    ended = done;
    const lines = (rest + (value ?? "")).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines.filter(Boolean)) onLine(JSON.parse(line));
  }
}

/**
 * Sends a file and reports how many bytes of it have gone; fetch cannot do that. Raises RefusedError, AbortError where
 * the signal ends it, and TypeError where the connection broke.
 * @param {string} path
 * @param {File} file
 * @param {{ signal: AbortSignal, onProgress: (sent: number, total: number) => void }} options
 * @returns {Promise<any>}
 */
export function upload(path, file, { signal, onProgress }) {
  const request = new XMLHttpRequest();
  signal.addEventListener("abort", () => request.abort());
  request.upload.onprogress = (event) => onProgress(event.loaded, event.total);
  return new Promise((resolve, reject) => {
    request.onload = () => {
      let answer = null;
      try {
        answer = JSON.parse(request.responseText);
      } catch {
        // no JSON: the status alone says what happened
      }
      const refused = request.getResponseHeader(REFUSED);
      if (request.status === 201 && refused === null) resolve(answer);
      else reject(new RefusedError(Number(refused ?? request.status), answer));
    };
    request.onerror = () => reject(new TypeError("the upload broke off"));
    request.onabort = () => reject(new DOMException("the upload was cancelled", "AbortError"));
    request.open("POST", path);
    for (const [name, value] of Object.entries(PAGE)) request.setRequestHeader(name, value);
    request.send(file);
  });
}
