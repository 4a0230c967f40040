// How the page asks its server. What a person typed may be refused: that is an answer, and the browser's console, where
// faults of the page stand in red, has nothing to say of it. Other programs are told by the status, 422 or 404.

/** Says that the page itself asks: it is answered 200 where it is refused, with the status of programs in a header. */
export const OWN = { "tuning-fork-page": "1" };
const REFUSED = "tuning-fork-refused";

export function isRefused(answer) {
  return !answer.ok || answer.headers.has(REFUSED);
}

export function sendJson(path, body, more = {}) {
  return fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json", ...OWN },
    body: JSON.stringify(body ?? {}),
    ...more,
  });
}

/** What the server answers; nothing while it is away, which the page says elsewhere, or where there is no such thing. */
export async function got(path) {
  const answer = await fetch(path, { cache: "no-store", headers: OWN }).catch(() => null);
  return answer && !isRefused(answer) ? answer.json().catch(() => null) : null;
}
