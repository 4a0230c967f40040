// "Your data": what a file was recognised as, its rows, and the tokens they become, before Start.
// Asks POST /fork/data/preview when a setting that matters has changed; what is pressed here goes into the form.

import { bytes, element } from "./dom.js";
import { lengthsFigure } from "./data_lengths.js";
import { DOWNLOADED } from "./hub_data.js";
import { mountUpload } from "./data_upload.js";
import { noticeList, plural, sentence } from "./notices.js";
import { sendJson } from "./requests.js";

const SHAPES = {
  text: ["text"],
  "text + label": ["text", "label"],
  "prompt + completion": ["prompt", "completion"],
  "instruction + input + output": ["prompt", "input", "completion"],
  conversation: ["messages"],
};
/** What a role is called here, where that is not its own name; the server knows which roles there are. */
const ROLE_WORDS = { completion: "answer", messages: "turns", text_pair: "second text" };
const SHOWN_COLUMNS = 12;
const OPEN = "tuning-fork-data-open";
const WAIT = 250,
  AGAIN = 500;

async function post(address, settings, { signal }) {
  return (await sendJson(address, settings, { signal })).json();
}

export function mountData(root, props, watch, trigger) {
  const summary = element("summary", {}, "Your data");
  const body = element("div", { class: "tf-data-body" });
  const details = element("details", { class: "tf-card tf-fold tf-data", id: "tf-your-data" }, [summary, body]);
  root.replaceChildren(details);
  details.open = localStorage.getItem(OPEN) === "yes";
  details.addEventListener("toggle", () => localStorage.setItem(OPEN, details.open ? "yes" : "no"));
  const set = (values) => trigger("set", { values });
  mountUpload(details, (path) => {
    details.open = true;
    set({ "data.source": path, "data.columns": {} });
  });

  let asked = "",
    timer = null,
    request = null;
  let last = null,
    opened = null; // what was last drawn whole; the rows for which the section opened by itself
  const changed = () => {
    const settings = props.value?.settings;
    if (!settings) return;
    const used = JSON.stringify([
      settings.task,
      settings.model,
      settings.revision,
      settings.seed,
      settings.data,
      settings.micro_batch_size,
      settings.gradient_accumulation_steps,
    ]);
    if (used === asked) return;
    asked = used;
    clearTimeout(timer);
    timer = setTimeout(() => load(settings), WAIT);
  };
  watch("value", changed);
  document.addEventListener(DOWNLOADED, () => {
    asked = "";
    changed();
  }); // the same settings now have rows
  changed();

  async function load(settings) {
    request?.abort();
    const mine = (request = new AbortController());
    details.setAttribute("aria-busy", "true");
    try {
      const found = await post("fork/data/preview", settings, mine);
      if (mine !== request) return;
      draw(stillThere(found, settings), settings);
      details.removeAttribute("aria-busy");
      if (found.whole === false) await follow(found, settings, mine);
    } catch (error) {
      if (error.name !== "AbortError") asked = ""; // asked again with the next change
    }
    if (mine === request) details.removeAttribute("aria-busy");
  }

  /** The first rows are shown; what only all rows tell comes when they are read, and until then how far that is. */
  async function follow(found, settings, mine) {
    while (mine === request) {
      const answer = await post("fork/data/facts", settings, mine);
      if (mine !== request) return;
      if (!answer.reading) {
        const bad = answer.facts?.bad.whole ? answer.facts.bad : found.bad; // else the same rows were looked at
        const known = found.problems.map((one) => one.message);
        const more = (answer.problems ?? []).filter((one) => !known.includes(one.message));
        draw({ ...found, ...answer.facts, bad, problems: [...found.problems, ...more] }, settings);
        return;
      }
      title({ ...found, reading: answer.reading });
      const before = body.querySelector(".tf-reading"); // the rest stays as it is: a person may be at it
      if (before) before.replaceWith(reading(answer.reading));
      else body.prepend(reading(answer.reading));
      await new Promise((resolve) => setTimeout(resolve, AGAIN));
    }
  }

  /** A setting that cannot be read does not take the rows away: the last ones stay under what is wrong. */
  function stillThere(found, settings) {
    const rows = JSON.stringify([settings.data?.source, settings.data?.subset, settings.data?.revision]);
    if (found.columns) last = { rows, found };
    else if (last?.rows === rows && !found.problems?.some((one) => one.field === "data.source"))
      return { ...last.found, problems: found.problems, stale: true };
    return found;
  }

  /** More than one reading is possible: a person has to choose, and is shown where. */
  function openToChoose(found, settings) {
    const rows = settings.data?.source;
    if (!unread(found) || opened === rows || details.open) return;
    opened = rows;
    details.open = true;
  }

  function title(found) {
    summary.replaceChildren(element("span", { class: "tf-fold-title" }, "Your data"), ...chips(found));
  }

  function draw(found, settings) {
    const focused = document.activeElement?.dataset?.key;
    title(found);
    openToChoose(found, settings);
    body.classList.toggle("tf-earlier", Boolean(found.stale));
    body.replaceChildren(
      ...problems(found),
      ...notices(found),
      ...(found.columns ? [columns(found, settings, set), template(found, settings, set)] : []),
      ...(found.bad?.count ? [badRows(found, set)] : []),
      ...(found.rows?.length ? [rows(found)] : []),
      ...(found.lengths?.rows ? [lengthsFigure(found)] : []),
      ...facts(found),
    );
    if (focused) body.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }
}

function chips(found) {
  const chip = (text, verdict) => element("span", { class: "tf-chip", "data-verdict": verdict ?? null }, text);
  if (!found.columns) return [chip("cannot be read", "over")];
  const about = found.whole === false && !found.counted ? "of its head" : "";
  const list = [];
  if (found.shape) list.push(chip(found.shape));
  if (found.train_rows)
    list.push(chip(`${count(found.train_rows)} + ${plural(found.eval_rows, "row")} ${about}`.trim()));
  if (found.bad?.count)
    list.push(chip(plural(found.bad.count, "bad row"), found.bad.choice === "skip" ? "tight" : "over"));
  if (found.lengths?.cut_rows) list.push(chip(`${count(found.lengths.cut_rows)} cut`, "tight"));
  if (found.reading)
    list.push(
      chip(
        found.reading.total ? `reading ${Math.floor((100 * found.reading.done) / found.reading.total)} %` : "reading",
        "tight",
      ),
    );
  if (found.notices?.length) list.push(chip(`${plural(found.notices.length, "notice")} on the rows`, "tight"));
  if (unread(found)) list.push(chip("needs a choice", "over"));
  else if (ofTheRows(found).length) list.push(chip("needs a change", "over"));
  return list;
}

/** The problems that the rows themselves have: not those of the base model. */
function ofTheRows(found) {
  return (found.problems ?? []).filter(({ field }) => !["model", "revision"].includes(field));
}

function problems(found) {
  const [mine, others] = [ofTheRows(found), (found.problems ?? []).filter((one) => !ofTheRows(found).includes(one))];
  const told = mine.map((problem) => element("p", { class: "tf-problem" }, sentence(problem)));
  // what is wrong beside the rows is told where it is; here, what of the rows it hides
  const hidden =
    others.length && !found.tokens
      ? [element("p", { class: "tf-small" }, `The tokens are not shown. ${others.map(sentence).join(" ")}`)]
      : [];
  return [...(told.length ? [element("div", { role: "alert" }, told)] : []), ...hidden];
}

function notices(found) {
  if (!found.notices?.length) return [];
  return [
    element("section", { "aria-label": "What is told of these rows" }, [
      element("h3", {}, "Told before Start"),
      noticeList(found.notices),
    ]),
  ];
}

/** Is it not clear which column is what? */
function unread(found) {
  return Boolean(found.columns) && (found.problems ?? []).some((one) => one.field === "data.columns");
}

/** How far the reading of all rows is, while the first ones are shown already. */
function reading({ words, done, total }) {
  return element("div", { class: "tf-upload tf-reading" }, [
    element("span", {}, `These are the first rows. ${words}; what all rows say follows.`),
    element("progress", { max: Math.max(1, total), value: done, "aria-label": "Reading all rows" }),
  ]);
}

/** What it was recognised as, always changeable: a shape, which column plays which part of it, and the columns that play
 * none. Where more than one reading is possible all of them are such, and each can be given a part. */
function columns(found, settings, set) {
  const chosen = settings.data?.columns ?? {};
  const current = found.shape ?? "";
  const roles = found.roles ?? chosen;
  const parts = found.role_names.filter((role) => role in roles);
  const mine = Object.fromEntries(parts.map((role) => [role, roles[role]])); // grows: the answer to the choice before may not be here yet
  const tell = () => set({ "data.columns": { ...mine } });
  const choose = (column, role) => {
    // of a column, its part: "" for none
    for (const [part, name] of Object.entries(mine)) if (name === column) delete mine[part];
    if (role) mine[role] = column;
    tell();
  };
  const shapes = current && !(current in SHAPES) ? [current, ...Object.keys(SHAPES)] : Object.keys(SHAPES);
  const shape = element("select", { "data-key": "shape", "aria-label": "recognised as" }, [
    ...(current ? [] : [element("option", { value: "" }, "choose…")]),
    ...shapes.map((name) => element("option", { value: name, selected: name === current }, name)),
  ]);
  shape.addEventListener("change", () => {
    const wanted = SHAPES[shape.value] ?? [];
    const free = found.columns.filter((name) => !Object.values(roles).includes(name));
    set({
      "data.columns": Object.fromEntries(wanted.map((role) => [role, roles[role] ?? free.shift() ?? found.columns[0]])),
    });
  });
  const controls = parts.map((role) => {
    const names = found.columns.includes(roles[role]) ? found.columns : [roles[role], ...found.columns];
    const select = element("select", { "data-key": `role-${role}`, "aria-label": `${roleWord(role)} column` }, [
      ...names.map((name) => element("option", { value: name, selected: name === roles[role] }, name)),
      element("option", { value: "" }, "(none)"),
    ]);
    select.addEventListener("change", () => {
      if (select.value) mine[role] = select.value;
      else delete mine[role];
      tell();
    });
    return element("label", { class: "tf-control" }, [element("span", {}, roleWord(role)), select]);
  });
  const own = Object.keys(chosen).length > 0;
  const again = element(
    "button",
    {
      type: "button",
      class: "tf-button",
      "data-key": "again",
      disabled: !own,
      onclick: () => set({ "data.columns": {} }),
    },
    "Recognise it again",
  );
  const where = [found.format, found.encoding, bytes(found.bytes)].filter(Boolean).join(" · ");
  return element("section", { "aria-label": "Recognised as" }, [
    element("p", { class: "tf-small" }, where),
    ...(unread(found)
      ? []
      : [
          element("div", { class: "tf-controls" }, [
            element("label", { class: "tf-control" }, [
              element("span", {}, own ? "read as (your choice)" : "recognised as"),
              shape,
            ]),
            ...controls,
            again,
          ]),
        ]),
    ...(unread(found) ? [whichIsWhat(found, roles, choose, again)] : otherColumns(found, roles, choose)),
    ...(found.notes ?? []).map((note) => element("p", { class: "tf-small" }, note)),
  ]);
}

function roleWord(role) {
  return ROLE_WORDS[role] ?? role.replaceAll("_", " ");
}

function whichIsWhat(found, roles, choose, again) {
  return element("div", { class: "tf-choose" }, [
    element("h3", {}, "Which column is what"),
    columnTable(found, found.columns, roles, choose),
    ...(again.disabled ? [] : [element("div", { class: "tf-controls" }, again)]),
  ]);
}

let othersOpen = false;

/** Columns that no row is made of: to be seen, and to be given a part. */
function otherColumns(found, roles, choose) {
  const used = Object.values(roles).join("\n");
  const others = found.columns.filter((name) => !Object.values(roles).includes(name) && !used.includes(`{${name}}`));
  if (!others.length) return [];
  const table = columnTable(found, others, roles, choose),
    names = others.slice(0, SHOWN_COLUMNS).join(", ");
  const opener = element(
    "button",
    {
      type: "button",
      class: "tf-told-open",
      "data-key": "others",
      onclick: () => {
        othersOpen = !othersOpen;
        show();
      },
    },
    `${plural(others.length, "column")} not used: ${names}${others.length > SHOWN_COLUMNS ? " …" : ""}`,
  );
  const show = () => {
    table.hidden = !othersOpen;
    opener.setAttribute("aria-expanded", String(othersOpen));
  };
  show();
  return [element("div", { class: "tf-other-columns" }, [opener, table])];
}

/** A line a column: its name, what stands in it, and the part it plays. */
function columnTable(found, names, roles, choose) {
  const example = (name) => {
    const text = (found.rows ?? []).map((row) => row.cells[name]).find(Boolean) ?? "";
    return text.length > 90 ? `${text.slice(0, 90)}…` : text || "(empty)";
  };
  const lines = names.map((name) => {
    const now = Object.keys(roles).find((role) => roles[role] === name) ?? "";
    const select = element("select", { "data-key": `column-${name}`, "aria-label": `${name} is` }, [
      element("option", { value: "" }, "not used"),
      ...found.role_names.map((role) => element("option", { value: role, selected: role === now }, roleWord(role))),
    ]);
    select.addEventListener("change", () => choose(name, select.value));
    return element("tr", {}, [
      element("th", { scope: "row" }, name),
      element("td", {}, select),
      element("td", { class: "tf-example" }, example(name)),
    ]);
  });
  return element(
    "div",
    { class: "tf-scroll" },
    element("table", { class: "tf-table tf-columns" }, [
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          ["column", "is", "such as"].map((text) => element("th", { scope: "col" }, text)),
        ),
      ),
      element("tbody", {}, lines),
    ]),
  );
}

/** Field names as buttons for the text template. */
function template(found, settings, set) {
  if (found.shape === "conversation") return element("span", { hidden: true });
  const now = settings.data?.text_template ?? "";
  let text = now; // grows with each press: the form's answer to the press before may not be here yet
  const add = (name) => {
    text += (text && !/\s$/.test(text) ? " " : "") + `{${name}}`;
    set({ "data.text_template": text });
  };
  const buttons = found.columns.map((name) =>
    element(
      "button",
      {
        type: "button",
        class: "tf-button",
        "data-key": `field-${name}`,
        title: `put {${name}} at the end of the text template`,
        onclick: () => add(name),
      },
      `{${name}}`,
    ),
  );
  const clear = now
    ? [
        element(
          "button",
          {
            type: "button",
            class: "tf-button",
            "data-key": "no-template",
            onclick: () => set({ "data.text_template": "" }),
          },
          "no template",
        ),
      ]
    : [];
  return element("section", { "aria-label": "Text template" }, [
    element("div", { class: "tf-controls" }, [
      element("span", { class: "tf-control" }, "text template"),
      ...(now ? [element("code", { class: "tf-template" }, now)] : []),
      ...buttons,
      ...clear,
    ]),
  ]);
}

function badRows(found, set) {
  const skip = found.bad.choice === "skip";
  const button = element(
    "button",
    {
      type: "button",
      class: "tf-button",
      "data-key": "bad",
      onclick: () => set({ "data.bad_rows": skip ? "stop" : "skip" }),
    },
    skip ? "Refuse to start instead" : "Leave bad rows out",
  );
  const list = found.bad.rows.map((row) =>
    element("tr", {}, [element("td", { class: "tf-num" }, `${found.unit} ${row.line}`), element("td", {}, row.reason)]),
  );
  const more =
    found.bad.count > found.bad.rows.length
      ? ` The first ${found.bad.rows.length === 1 ? "one is" : `${found.bad.rows.length} are`} listed.`
      : "";
  const checked = found.bad.whole ? "" : ` Of ${plural(found.bad.checked, "row")} looked at so far.`;
  const words =
    `${plural(found.bad.count, "row")} cannot be used` +
    (skip
      ? " and will be left out."
      : `: mend ${found.bad.count === 1 ? "it" : "them"}, or leave ${found.bad.count === 1 ? "it" : "them"} out.`) +
    more +
    checked;
  return element("section", { "aria-label": "Bad rows" }, [
    element("h3", {}, "Bad rows"),
    element("div", { class: "tf-controls" }, [element("span", {}, words), button]),
    element(
      "div",
      { class: "tf-scroll tf-bad", tabindex: 0, role: "group", "aria-label": "List of bad rows" },
      element("table", { class: "tf-table" }, element("tbody", {}, list)),
    ),
  ]);
}

function rows(found) {
  const legend = element("p", { class: "tf-small tf-token-legend" }, [
    token("trained on", "trained"),
    token("seen only", "seen"),
    token("cut off", "cut"),
    token("<special>", "seen", true),
  ]);
  return element("section", { "aria-label": "First rows" }, [
    element("h3", {}, found.tokens ? "First rows, and the tokens they become" : "First rows"),
    ...(found.tokens ? [legend] : []),
    ...found.rows.map((row, place) => oneRow(row, found.tokens?.[place], found)),
  ]);
}

function oneRow(row, tokens, found) {
  const cells = Object.entries(row.cells).map(([name, text]) =>
    element("div", { class: "tf-cell" }, [
      element("span", { class: "tf-cell-name" }, name),
      element("span", { class: "tf-cell-text" }, text || "(empty)"),
    ]),
  );
  const drawn = tokens
    ? [
        element(
          "p",
          { class: "tf-tokens" },
          tokens.tokens.map(([text, state, special, many]) => token(text, state, special, many)),
        ),
        element(
          "p",
          { class: "tf-small" },
          plural(tokens.count, "token") +
            (tokens.kept < tokens.count ? `, ${count(tokens.count - tokens.kept)} cut off` : "") +
            (tokens.label !== null ? `; the class is ${found.labels?.[tokens.label]?.name}` : ""),
        ),
      ]
    : [];
  return element("article", { class: "tf-data-row" }, [
    element("p", { class: "tf-small" }, `${found.unit} ${count(row.line)}`),
    ...cells,
    ...drawn,
  ]);
}

function token(text, state, special, many) {
  const shown = text.replaceAll("\n", "↵\n").replaceAll("\t", "→");
  const title =
    { trained: "trained on", seen: "seen, not trained on", cut: "cut off", gap: "" }[state] +
    (special ? ", special token" : "") +
    (many > 1 ? `, ${many} tokens` : "");
  return element(
    "span",
    { class: "tf-token", "data-state": state, "data-special": special ? "yes" : null, title },
    shown,
  );
}

function facts(found) {
  if (!found.train_rows) return [];
  const items = [];
  const say = (text, odd) => items.push(element("li", { class: odd ? "tf-odd" : null }, text));
  const about = found.whole === false ? " (of the rows looked at)" : "";
  if (found.updates_per_epoch && (found.whole !== false || found.counted))
    say(`${plural(found.updates_per_epoch, "update")} an epoch, ${plural(found.effective_batch, "row")} each`);
  say(
    found.duplicates
      ? `${plural(found.duplicates, "training row")} ${found.duplicates === 1 ? "repeats" : "repeat"} an earlier one${about}`
      : `no row stands there twice${about}`,
    found.duplicates,
  );
  if (found.eval_rows)
    say(
      found.in_both
        ? `${plural(found.in_both, "evaluation row")} ${found.in_both === 1 ? "is" : "are"} trained on too${about}`
        : `no evaluation row is trained on${about}`,
      found.in_both,
    );
  say(
    found.empty
      ? `${count(found.empty)} of ${plural(found.looked_at, "row")} ${found.empty === 1 ? "has" : "have"} nothing to learn from (an empty answer) and ${found.empty === 1 ? "is" : "are"} left out`
      : "no answer is empty",
    found.empty,
  );
  const labels = found.labels ?? [];
  const most = Math.max(1, ...labels.map((label) => label.train));
  const balance = labels.slice(0, 20).map((label) => {
    const bar = element("span", { class: "tf-bar" }, element("span", {}));
    bar.firstChild.style.width = `${(100 * label.train) / most}%`;
    return element("tr", {}, [
      element("td", {}, label.name),
      element("td", { class: "tf-num" }, count(label.train)),
      element("td", { class: "tf-num" }, count(label.eval)),
      element("td", { class: "tf-balance" }, bar),
    ]);
  });
  const table = balance.length
    ? [
        element("table", { class: "tf-table" }, [
          element(
            "thead",
            {},
            element(
              "tr",
              {},
              ["class", "training", "evaluation", ""].map((text) =>
                element("th", { scope: "col", class: /ing$|ation$/.test(text) ? "tf-num" : null }, text),
              ),
            ),
          ),
          element("tbody", {}, balance),
        ]),
        ...(labels.length > 20
          ? [element("p", { class: "tf-small" }, `and ${plural(labels.length - 20, "more class", "more classes")}`)]
          : []),
      ]
    : [];
  return [
    element("section", { "aria-label": "What to know about the rows" }, [
      element("h3", {}, "What to know about them"),
      element("ul", { class: "tf-facts" }, items),
      ...table,
    ]),
  ];
}

function count(number) {
  return Number(number).toLocaleString("en");
}
