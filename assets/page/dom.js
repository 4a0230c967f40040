// Building elements without HTML strings: text only ever goes in as text.

export function element(tag, attributes = {}, children = []) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else node.setAttribute(name, value);
  }
  for (const child of Array.isArray(children) ? children : [children]) {
    if (child !== null && child !== undefined) node.append(child);
  }
  return node;
}

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${count >= 100 || unit === 0 ? Math.round(count) : count.toPrecision(3)} ${units[unit]}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "";
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** A short message at the foot of the page, with one thing to press; with `stay` it stands until that is pressed. */
export function toast(text, action, onPress, stay = false) {
  let place = document.querySelector(".tf-toasts");
  if (!place) {
    place = element("div", { class: "tf-toasts", role: "status" });
    (document.querySelector(".gradio-container") ?? document.body).append(place);
  }
  const note = element("div", { class: "tf-toast" }, element("span", {}, text));
  if (action)
    note.append(
      element(
        "button",
        {
          type: "button",
          class: "tf-button",
          onclick: () => {
            note.remove();
            onPress();
          },
        },
        action,
      ),
    );
  place.append(note);
  if (!stay) setTimeout(() => note.remove(), action ? 10000 : 6000);
}
