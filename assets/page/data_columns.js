// @ts-check
// Which column of a file plays which part in a row, always changeable; and the text template made of columns.

import { element } from "./dom.js";
import { bytes, plural } from "./format.js";

/** @typedef {import("./shapes").DataPreview} DataPreview */
/** @typedef {import("./data.js").SetValues} SetValues */
/** @typedef {(column: string, role: string) => void} ChooseRole gives a column its role; "" for none */

/**
 * The shapes of rows that can be chosen, with the roles they need.
 * @type {Record<string, string[]>}
 */
const SHAPES = {
  text: ["text"],
  "text + label": ["text", "label"],
  "prompt + completion": ["prompt", "completion"],
  "instruction + input + output": ["prompt", "input", "completion"],
  conversation: ["messages"],
};
/**
 * What a role is called here, where that is not its own name; the server says which roles there are.
 * @type {Record<string, string>}
 */
const ROLE_WORDS = { completion: "answer", messages: "turns", text_pair: "second text" };
const SHOWN_COLUMNS = 12;
const EXAMPLE_LENGTH = 90;

/** @param {string} role */
function roleWord(role) {
  return ROLE_WORDS[role] ?? role.replaceAll("_", " ");
}

/**
 * Whether it is not clear which column is what.
 * @param {DataPreview} preview
 */
export function isUnread({ columns, problems }) {
  return Boolean(columns) && (problems ?? []).some(({ field }) => field === "data.columns");
}

/**
 * What the rows were recognised as: a shape, which column plays which part of it, and the columns that play none. Where
 * more than one reading is possible all of them are such, and each can be given a part.
 * @param {DataPreview} preview
 * @param {any} settings
 * @param {SetValues} set
 */
export function columnsSection(preview, settings, set) {
  const chosen = settings.data?.columns ?? {};
  const isChosen = Object.keys(chosen).length > 0;
  const roles = preview.roles ?? chosen;
  const parts = preview.role_names.filter((role) => role in roles);
  // grows with each press: the answer to the choice before may not be here yet
  const own = Object.fromEntries(parts.map((role) => [role, roles[role]]));
  const send = () => set({ "data.columns": { ...own } });
  /** @type {ChooseRole} */
  const choose = (column, role) => {
    for (const [part, name] of Object.entries(own)) if (name === column) delete own[part];
    if (role) own[role] = column;
    send();
  };
  const again = element(
    "button",
    {
      type: "button",
      class: "tf-button",
      "data-key": "again",
      disabled: !isChosen,
      onclick: () => set({ "data.columns": {} }),
    },
    "Recognise it again",
  );
  const file = [preview.format, preview.encoding, bytes(preview.bytes)].filter(Boolean).join(" · ");
  const notes = (preview.notes ?? []).map((note) => element("p", { class: "tf-small" }, note));
  if (isUnread(preview)) {
    return element("section", { "aria-label": "Recognised as" }, [
      element("p", { class: "tf-small" }, file),
      whichIsWhat(preview, roles, choose, isChosen ? again : null),
      ...notes,
    ]);
  }
  const label = isChosen ? "read as (your choice)" : "recognised as";
  const shape = element("label", { class: "tf-control" }, [
    element("span", {}, label),
    shapeSelect(preview, roles, set),
  ]);
  const controls = parts.map((role) => roleControl(preview, roles, role, own, send));
  return element("section", { "aria-label": "Recognised as" }, [
    element("p", { class: "tf-small" }, file),
    element("div", { class: "tf-controls" }, [shape, ...controls, again]),
    ...otherColumns(preview, roles, choose),
    ...notes,
  ]);
}

/**
 * @param {DataPreview} preview
 * @param {Record<string, string>} roles
 * @param {SetValues} set
 */
function shapeSelect(preview, roles, set) {
  const current = preview.shape ?? "";
  const others = Object.keys(SHAPES).filter((name) => name !== current);
  const shapes = current && !(current in SHAPES) ? [current, ...others] : Object.keys(SHAPES);
  const select = element("select", { "data-key": "shape", "aria-label": "recognised as" }, [
    ...(current ? [] : [element("option", { value: "" }, "choose…")]),
    ...shapes.map((name) => element("option", { value: name, selected: name === current }, name)),
  ]);
  select.addEventListener("change", () => {
    set({ "data.columns": columnsFor(SHAPES[select.value] ?? [], preview.columns ?? [], roles) });
  });
  return select;
}

/**
 * A column for each role: the one that plays it, else the next free one, else the first.
 * @param {string[]} needed roles
 * @param {string[]} columns
 * @param {Record<string, string>} roles as they are
 */
export function columnsFor(needed, columns, roles) {
  const free = columns.filter((name) => !Object.values(roles).includes(name));
  return Object.fromEntries(needed.map((role) => [role, roles[role] ?? free.shift() ?? columns[0]]));
}

/**
 * @param {DataPreview} preview
 * @param {Record<string, string>} roles
 * @param {string} role
 * @param {Record<string, string>} own roles with what has been chosen here
 * @param {() => void} send
 */
function roleControl(preview, roles, role, own, send) {
  const columns = preview.columns ?? [];
  const names = columns.includes(roles[role]) ? columns : [roles[role], ...columns];
  const select = element("select", { "data-key": `role-${role}`, "aria-label": `${roleWord(role)} column` }, [
    ...names.map((name) => element("option", { value: name, selected: name === roles[role] }, name)),
    element("option", { value: "" }, "(none)"),
  ]);
  select.addEventListener("change", () => {
    if (select.value) own[role] = select.value;
    else delete own[role];
    send();
  });
  return element("label", { class: "tf-control" }, [element("span", {}, roleWord(role)), select]);
}

/**
 * @param {DataPreview} preview
 * @param {Record<string, string>} roles
 * @param {ChooseRole} choose
 * @param {HTMLElement | null} again
 */
function whichIsWhat(preview, roles, choose, again) {
  return element("div", { class: "tf-choose" }, [
    element("h3", {}, "Which column is what"),
    columnTable(preview, preview.columns ?? [], roles, choose),
    again ? element("div", { class: "tf-controls" }, again) : null,
  ]);
}

let areOthersOpen = false; // the section is drawn anew at each change

/**
 * Columns that no row is made of: to be seen, and to be given a part.
 * @param {DataPreview} preview
 * @param {Record<string, string>} roles
 * @param {ChooseRole} choose
 */
function otherColumns(preview, roles, choose) {
  const others = unusedColumns(preview.columns ?? [], roles);
  if (!others.length) return [];
  const table = columnTable(preview, others, roles, choose);
  const names = others.slice(0, SHOWN_COLUMNS).join(", ") + (others.length > SHOWN_COLUMNS ? " …" : "");
  const toggle = () => {
    areOthersOpen = !areOthersOpen;
    show();
  };
  const opener = element(
    "button",
    { type: "button", class: "tf-opener", "data-key": "others", onclick: toggle },
    `${plural(others.length, "column")} not used: ${names}`,
  );
  const show = () => {
    table.hidden = !areOthersOpen;
    opener.setAttribute("aria-expanded", String(areOthersOpen));
  };
  show();
  return [element("div", { class: "tf-other-columns" }, [opener, table])];
}

/**
 * The columns that play no role, alone or as a {field} of a template.
 * @param {string[]} columns
 * @param {Record<string, string>} roles
 */
export function unusedColumns(columns, roles) {
  const used = Object.values(roles);
  const templates = used.join("\n");
  return columns.filter((name) => !used.includes(name) && !templates.includes(`{${name}}`));
}

/**
 * A line a column: its name, the part it plays, and what stands in it.
 * @param {DataPreview} preview
 * @param {string[]} names
 * @param {Record<string, string>} roles
 * @param {ChooseRole} choose
 */
function columnTable(preview, names, roles, choose) {
  const lines = names.map((name) => {
    const current = Object.keys(roles).find((role) => roles[role] === name) ?? "";
    const select = element("select", { "data-key": `column-${name}`, "aria-label": `${name} is` }, [
      element("option", { value: "" }, "not used"),
      ...preview.role_names.map((role) =>
        element("option", { value: role, selected: role === current }, roleWord(role)),
      ),
    ]);
    select.addEventListener("change", () => choose(name, select.value));
    return element("tr", {}, [
      element("th", { scope: "row" }, name),
      element("td", {}, select),
      element("td", { class: "tf-example" }, exampleOf(preview, name)),
    ]);
  });
  const heads = ["column", "is", "such as"].map((text) => element("th", { scope: "col" }, text));
  return element(
    "div",
    { class: "tf-scroll" },
    element("table", { class: "tf-table tf-columns" }, [
      element("thead", {}, element("tr", {}, heads)),
      element("tbody", {}, lines),
    ]),
  );
}

/**
 * The first text that stands in a column.
 * @param {DataPreview} preview
 * @param {string} column
 */
function exampleOf(preview, column) {
  const text = (preview.rows ?? []).map((row) => row.cells[column]).find(Boolean) ?? "";
  return text.length > EXAMPLE_LENGTH ? `${text.slice(0, EXAMPLE_LENGTH)}…` : text || "(empty)";
}

/**
 * Field names as buttons for the text template.
 * @param {DataPreview} preview
 * @param {any} settings
 * @param {SetValues} set
 */
export function templateSection(preview, settings, set) {
  if (preview.shape === "conversation") return element("span", { hidden: true });
  const current = settings.data?.text_template ?? "";
  let text = current; // grows with each press: the form's answer to the press before may not be here yet
  const add = (/** @type {string} */ name) => {
    text += `${text && !/\s$/.test(text) ? " " : ""}{${name}}`;
    set({ "data.text_template": text });
  };
  const fieldButton = (/** @type {string} */ name) => {
    const title = `put {${name}} at the end of the text template`;
    const attributes = { type: "button", class: "tf-button", "data-key": `field-${name}`, title };
    return element("button", { ...attributes, onclick: () => add(name) }, `{${name}}`);
  };
  const clear = () => set({ "data.text_template": "" });
  const clearButton = { type: "button", class: "tf-button", "data-key": "no-template", onclick: clear };
  return element("section", { "aria-label": "Text template" }, [
    element("div", { class: "tf-controls" }, [
      element("span", { class: "tf-control" }, "text template"),
      current ? element("code", { class: "tf-template" }, current) : null,
      ...(preview.columns ?? []).map(fieldButton),
      current ? element("button", clearButton, "no template") : null,
    ]),
  ]);
}
