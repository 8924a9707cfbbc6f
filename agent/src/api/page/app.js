// The live page: one stream in, the smallest change out. Names and values are text, never markup.

const byId = (id) => document.getElementById(id);
const make = (tag, className, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};
const set = (element, text) => { if (element.textContent !== text) element.textContent = text; };

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat(undefined, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const number = (value) => (value === null || value === undefined ? "–" : whole.format(value));
const decimal = (value) => (value === null || value === undefined ? "–" : fine.format(value));
const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

const rank = { diverged: 0, unverified: 1, lagging: 2, copying: 3, unknown: 4, in_sync: 5 };
const words = { diverged: "differs", unverified: "not verified", lagging: "lagging", copying: "copying", unknown: "not looked at yet", in_sync: "in sync" };
const signs = { diverged: "✖", unverified: "?", lagging: "▲", copying: "●", unknown: "?", in_sync: "✔" };
const levels = { diverged: "bad", unverified: "unknown", lagging: "warn", copying: "busy", unknown: "unknown", in_sync: "ok" };

const tables = new Map();
const rows = new Map();
let head = null;
let skew = 0;
let lastMessage = performance.now();
let staleSince = null;
let paused = false;
const history = { changes: [], lag: [] };

const now = () => Date.now() + skew;

// ---- words for time and share

function span(seconds) {
  if (seconds < 0) return "0 s";
  if (seconds < 120) return `${Math.floor(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

function showAge(element, time, after = " ago") {
  if (!time) {
    set(element, "–");
    element.removeAttribute("title");
    return;
  }
  element.dataset.time = time;
  element.dataset.after = after;
  element.title = clock.format(new Date(time));
  set(element, span((now() - Date.parse(time)) / 1000) + after);
}

// A share never rounds up to 100: what is not all is not all.
function percent(value) {
  if (value === null || value === undefined) return "–";
  const cut = value < 100 ? Math.min(Math.floor(value * 100) / 100, 99.99) : value;
  return `${new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 }).format(cut)} %`;
}

// ---- the head

function showHead() {
  set(byId("about"), `${head.database} · ${head.pipeline} · ${head.version}${head.applies ? " · copies and applies" : " · only reads"}`);
  const sentence = byId("sentence");
  set(sentence.querySelector(".sign"), head.sentence.sign);
  set(sentence.querySelector(".text"), head.sentence.text);
  sentence.className = `sentence ${head.sentence.level}`;
  document.querySelector(".verdict").className = `verdict is-${head.sentence.level}`;
  document.title = `${head.sentence.sign} Plumbline – ${head.database}`;
  const others = byId("others");
  const shown = head.sentence.others.slice(0, 6).map((other) => `${other.sign} ${other.text}`);
  if (others.dataset.shown !== shown.join("\n")) {
    others.dataset.shown = shown.join("\n");
    others.replaceChildren(...shown.map((text) => make("li", "", text)));
  }
  const first = head.cutover.blockers[0];
  const cutover = byId("cutover");
  set(cutover, head.cutover.ready ? "✔ Safe to cut over now" : `✖ Not safe to cut over: ${first ? first.message : "not known yet"}`);
  cutover.className = `cutover ${head.cutover.ready ? "ok" : "bad"}`;
  set(byId("changes"), number(head.changes.total));
  set(byId("changes-more"), `${number(head.changes.since_start)} since this start, ${decimal(head.changes.per_second)} per second`);
  set(byId("lag"), decimal(head.lag.seconds));
  set(byId("lag-more"), `end-to-end delay of the newest change ${head.lag.delay_seconds === null ? "–" : `${head.lag.delay_seconds.toFixed(3)} s`}`);
  set(byId("runway"), head.runway.seconds === null ? "–" : span(head.runway.seconds));
  set(byId("runway-more"), head.runway.seconds === null ? "not known" : "");
  showConnections();
}

function showConnections() {
  const list = byId("connections");
  const key = JSON.stringify(head.connections);
  if (list.dataset.shown === key) return;
  list.dataset.shown = key;
  const labels = { mysql: "MySQL", postgres: "PostgreSQL", history: "History", kafka: "Kafka", connect: "Connect" };
  const states = { up: ["✔ connected", "ok"], warning: ["▲ look here", "warn"], down: ["✖ away", "bad"], not_configured: ["– not configured", "quiet"] };
  list.replaceChildren(...head.connections.map((connection) => {
    const item = make("li");
    const [text, level] = states[connection.state] || [connection.state, ""];
    const state = make("span", level, text);
    if (connection.since) {
      const since = make("span", "quiet age");
      showAge(since, connection.since, "");
      state.append(", for ", since);
    }
    item.append(make("span", "", labels[connection.name] || connection.name), state);
    for (const message of connection.messages) item.append(make("span", "why", message));
    return item;
  }));
}

function remember() {
  if (!head || staleSince) return;
  history.changes.push(head.changes.per_second ?? 0);
  history.lag.push(head.lag.seconds ?? 0);
  for (const [name, values] of Object.entries(history)) {
    if (values.length > 180) values.shift();
    const most = Math.max(...values, 1e-9);
    const points = values.map((value, i) => `${(i / 179) * 100},${23 - (value / most) * 21}`).join(" ");
    byId(`${name}-line`).querySelector("polyline").setAttribute("points", points);
  }
}

// ---- the tables

function order(a, b) {
  return rank[a.status] - rank[b.status] || (a.table < b.table ? -1 : a.table > b.table ? 1 : 0);
}

function rowOf(name) {
  const element = make("div", "row");
  element.setAttribute("role", "listitem");
  const summary = make("button", "summary");
  summary.type = "button";
  summary.setAttribute("aria-expanded", "false");
  const part = (className) => {
    const span = make("span", className);
    summary.append(span);
    return span;
  };
  const row = { element, summary, name: part("name"), status: part("status"), meter: part("meter"), last: part("last"), proved: part("proved"), findings: part("found"), detail: null };
  const track = make("span", "track");
  row.fill = make("span", "fill");
  row.numbers = make("span", "numbers");
  track.append(row.fill);
  row.meter.append(track, row.numbers);
  row.lastWord = make("span");
  row.lastAge = make("span", "age");
  row.last.append(row.lastWord, row.lastAge);
  row.provedAge = make("span", "age");
  row.proved.append(row.provedAge);
  summary.addEventListener("click", () => toggle(row, name));
  element.append(summary);
  return row;
}

function showRow(row, table) {
  set(row.name, table.table.slice(table.table.indexOf(".") + 1));
  row.name.title = table.table;
  set(row.status, `${signs[table.status]} ${words[table.status]}${table.paused ? ", paused" : ""}`);
  row.status.className = `status ${levels[table.status]}`;
  const copying = table.status === "copying" && table.copy;
  const share = copying ? (table.copy.rows_expected ? (table.copy.rows_done / table.copy.rows_expected) * 100 : null) : table.sync_percentage;
  row.fill.style.width = `${share === null ? 0 : Math.min(share, 100)}%`;
  if (copying) {
    const left = table.copy.seconds_left === null ? "" : `, about ${span(table.copy.seconds_left)} left`;
    set(row.numbers, `${number(table.copy.rows_done)} of ${number(table.copy.rows_expected)} rows copied, ${number(table.copy.rows_per_second)} per second${left}`);
  } else if (table.check) {
    set(row.numbers, `${number(table.target_rows)} of ${number(table.source_rows)} rows, comparing ${number(table.check.rows)}`);
  } else {
    set(row.numbers, `${number(table.target_rows)} of ${number(table.source_rows)} rows${table.rows_estimated ? " (estimate)" : ""}, ${percent(table.sync_percentage)}`);
  }
  set(row.lastWord, table.last ? `${table.last.operation} ` : "");
  showAge(row.lastAge, table.last && table.last.timestamp);
  showAge(row.provedAge, table.verified_through && table.verified_through.time);
  const found = ["missing", "extra", "changed"].filter((verdict) => table.findings[verdict]).map((verdict) => `${number(table.findings[verdict])} ${verdict}`);
  set(row.findings, table.stopped ? "stopped" : found.length ? found.join(", ") : table.unverified.length ? `${table.unverified.length} not verified` : "none");
  row.findings.className = `found ${found.length || table.stopped ? "bad" : table.unverified.length ? "unknown" : "quiet"}`;
}

function showTables(changed) {
  const list = byId("tables");
  for (const table of changed) {
    let row = rows.get(table.table);
    if (!row) {
      row = rowOf(table.table);
      rows.set(table.table, row);
    }
    showRow(row, table);
  }
  // Only rows that stand in the wrong place are moved.
  const wanted = byId("filter").value.trim().toLowerCase();
  const visible = [...tables.values()].filter((table) => table.table.toLowerCase().includes(wanted)).sort(order);
  let at = list.firstElementChild;
  for (const table of visible) {
    const { element } = rows.get(table.table);
    if (element === at) at = at.nextElementSibling;
    else list.insertBefore(element, at);
  }
  while (at) {
    const next = at.nextElementSibling;
    at.remove();
    at = next;
  }
  set(byId("count"), visible.length === tables.size ? number(tables.size) : `${number(visible.length)} of ${number(tables.size)}`);
  byId("no-tables").hidden = visible.length > 0;
}

// ---- one table

async function ask(path, options) {
  const response = await fetch(path, options);
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.detail || `the agent answered ${response.status}`);
  return body;
}

function toggle(row, name) {
  const open = row.detail === null;
  row.summary.setAttribute("aria-expanded", String(open));
  if (open) {
    row.detail = make("div", "detail");
    row.element.append(row.detail);
    fill(row, name);
  } else {
    row.detail.remove();
    row.detail = null;
  }
}

async function fill(row, name) {
  const detail = row.detail;
  detail.replaceChildren(make("p", "quiet", "Looking …"));
  const path = encodeURIComponent(name);
  const [table, findings, latest, checks] = await Promise.allSettled([
    ask(`/api/v1/tables/${path}`), ask(`/api/v1/findings?state=open&limit=100&table=${path}`), ask(`/latest-records/${path}?limit=5`), ask("/api/v1/checks"),
  ]);
  if (row.detail !== detail) return;
  const parts = [actions(row, name, table.value)];
  const section = (title, ...content) => {
    const part = make("section");
    part.append(make("h3", "", title), ...content);
    parts.push(part);
  };
  const said = (result) => make("p", "bad", result.reason.message);
  if (table.value) {
    const { stopped, unverified, notes } = table.value;
    const lines = [];
    if (stopped) lines.push(make("p", "bad", `✖ Not applied any more: ${stopped}`));
    for (const entry of unverified) lines.push(make("p", "unknown", `? ${entry.columns.length ? `${entry.columns.join(", ")}: ` : ""}${entry.reason}`));
    for (const note of notes) lines.push(make("p", "quiet", note));
    if (lines.length) section("What to know", ...lines);
  }
  section("Findings", findings.reason ? said(findings) : findingsTable(findings.value));
  section("Newest rows by key", latest.reason ? said(latest) : sides(latest.value));
  if (table.value) {
    section("Columns", grid(["Column", "MySQL", "PostgreSQL", "Compared"], table.value.columns.map((column) => [
      `${column.name}${column.key ? " (key)" : ""}`, column.source_type, column.target_type ?? "–", column.compared ? "by value" : "no",
    ])));
    if (table.value.schema_changes.length) {
      section("Schema changes seen", grid(["When", "What"], table.value.schema_changes.map((change) => [clock.format(new Date(change.timestamp)), change.kind]).reverse()));
    }
  }
  if (checks.value) {
    const ran = checks.value.checks.filter((check) => check.results[name]).slice(0, 5).map((check) => {
      const result = check.results[name];
      return [check.ended_at ? clock.format(new Date(check.ended_at)) : "running", check.asked_by, result.verdict, number(result.rows_compared), number(result.findings_total), `${decimal(result.seconds)} s`];
    });
    if (ran.length) section("Comparisons", grid(["Ended", "Asked by", "Result", "Rows", "Findings", "Took"], ran));
  }
  detail.replaceChildren(...parts);
}

function actions(row, name, table) {
  const box = make("div", "actions");
  const note = make("span", "quiet");
  const button = (text, work) => {
    const element = make("button", "", text);
    element.type = "button";
    element.addEventListener("click", async () => {
      element.disabled = true;
      try {
        set(note, await work());
      } catch (error) {
        set(note, error.message);
      }
      element.disabled = false;
    });
    box.append(element);
    return element;
  };
  const path = encodeURIComponent(name);
  const post = (where, body) => ask(where, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body ?? {}) });
  button("Check now", async () => {
    const { id } = await post("/api/v1/checks", { tables: [name], full: true });
    setTimeout(() => row.detail && fill(row, name), 2000);
    return `check ${id} was started`;
  });
  const pausing = button(table && table.paused ? "Resume checks" : "Pause checks", async () => {
    const after = await post(`/api/v1/tables/${path}/${table && table.paused ? "resume" : "pause"}`);
    table = after;
    set(pausing, after.paused ? "Resume checks" : "Pause checks");
    return after.paused ? "checks by schedule are paused" : "checks by schedule go on";
  });
  box.append(note);
  return box;
}

function grid(titles, lines) {
  const scroll = make("div", "scroll");
  const table = make("table");
  const headRow = make("tr");
  headRow.append(...titles.map((title) => {
    const cell = make("th", "", title);
    cell.scope = "col";
    return cell;
  }));
  const thead = make("thead");
  thead.append(headRow);
  const body = make("tbody");
  for (const line of lines) {
    const element = make("tr");
    element.append(...line.map((text) => (text instanceof Node ? text : make("td", "", text))));
    body.append(element);
  }
  table.append(thead, body);
  scroll.append(table);
  return scroll;
}

function findingsTable(page) {
  if (!page.findings.length) return make("p", "quiet", "None open.");
  const lines = page.findings.map((finding) => {
    const key = Object.entries(finding.key).map(([column, value]) => `${column} = ${value}`).join(", ");
    const copies = finding.copies_source === undefined ? "" : `no key; ${number(finding.copies_source)} on MySQL, ${number(finding.copies_target)} on PostgreSQL`;
    return [finding.verdict, key || copies, finding.columns.join(", ") || "–", `${finding.cause ?? "proved"} by ${finding.settled_by}`, clock.format(new Date(finding.found_at))];
  });
  const box = grid(["Verdict", "Key", "Columns", "Why", "Since"], lines);
  if (page.total_open > lines.length) box.append(make("p", "quiet", `and ${number(page.total_open - lines.length)} more`));
  return box;
}

function sides(latest) {
  const box = make("div", "sides");
  const both = [["MySQL", latest.mysql_latest, latest.postgres_latest], ["PostgreSQL", latest.postgres_latest, latest.mysql_latest]];
  for (const [title, mine, theirs] of both) {
    const side = make("div");
    side.append(make("p", "quiet", title));
    if (!mine.length) {
      side.append(make("p", "quiet", "no rows"));
    } else {
      const columns = Object.keys(mine[0]);
      side.append(grid(columns, mine.map((line, i) => {
        const other = theirs[i];
        return columns.map((column) => {
          const cell = make("td", "", line[column] ?? "NULL");
          if (line[column] === null) cell.className = "gap";
          if (!other) cell.className = "gap";
          else if (column in other && loose(other[column]) !== loose(line[column])) cell.className = "differs";
          return cell;
        });
      })));
    }
    box.append(side);
  }
  return box;
}

// Both sides print some values differently (fractions, booleans, spaces in JSON): what is marked is for the eye, the proof is above.
function loose(value) {
  if (value === null || value === undefined) return null;
  const text = String(value).trim();
  if (/^-?\d+(\.\d+)?$/.test(text)) return String(Number(text));
  return text.replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "").replace(/\+00$/, "").replace(/^\\x/, "0x");
}

// ---- the tail

function showEvents(events) {
  if (paused) return;
  const list = byId("events");
  byId("no-events").hidden = true;
  for (const event of events) {
    const item = make("li");
    const age = make("span", "age");
    showAge(age, event.timestamp);
    const trace = make("span", "trace", `trace ${event.trace_id}`);
    trace.title = `${event.position}, trace ${event.trace_id}`;
    item.append(age, make("span", "", event.operation), make("span", "", event.table), trace);
    list.prepend(item);
  }
  while (list.children.length > 100) list.lastElementChild.remove();
}

// ---- the stream

function take(message) {
  lastMessage = performance.now();
  const { tables: changed, removed = [], ...rest } = message;
  head = rest;
  skew = Date.parse(rest.now) - Date.now();
  for (const name of removed) {
    tables.delete(name);
    rows.get(name)?.element.remove();
    rows.delete(name);
  }
  for (const table of changed) tables.set(table.table, table);
  showHead();
  if (changed.length || removed.length) showTables(changed);
  fresh();
}

function fresh() {
  if (!staleSince) return;
  staleSince = null;
  document.body.classList.remove("is-stale");
  byId("stale").hidden = true;
}

function watchStream() {
  if (performance.now() - lastMessage < 5000) return;
  if (!staleSince) {
    staleSince = new Date(Date.now() - 5000);
    document.body.classList.add("is-stale");
  }
  const stale = byId("stale");
  stale.hidden = false;
  set(stale, `✖ Stale since ${clock.format(staleSince)}: the agent does not answer`);
}

let source = null;
function connect() {
  source?.close();
  source = new EventSource("/api/v1/page/stream");
  source.addEventListener("snapshot", (event) => {
    tables.clear();
    for (const row of rows.values()) row.element.remove();
    rows.clear();
    take(JSON.parse(event.data));
    showTables([...tables.values()]);
  });
  source.addEventListener("patch", (event) => take(JSON.parse(event.data)));
  source.addEventListener("events", (event) => {
    lastMessage = performance.now();
    showEvents(JSON.parse(event.data));
  });
}

byId("filter").addEventListener("input", () => showTables([]));
byId("pause").addEventListener("click", (event) => {
  paused = !paused;
  event.target.setAttribute("aria-pressed", String(paused));
  set(event.target, paused ? "Go on" : "Pause");
});
setInterval(() => {
  watchStream();
  // The browser gives up on some failures: begin again by ourselves.
  if (source.readyState === EventSource.CLOSED) connect();
  for (const element of document.querySelectorAll(".age[data-time]")) {
    set(element, span((now() - Date.parse(element.dataset.time)) / 1000) + element.dataset.after);
  }
}, 1000);
setInterval(remember, 5000);
connect();
