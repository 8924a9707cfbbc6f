// The live page: one stream in, the smallest change out. Names and values are text, never markup.

const byId = (id) => document.getElementById(id);
const make = (tag, className, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};
const set = (element, text) => { if (element.textContent !== text) element.textContent = text; };
const setClass = (element, name) => { if (element.className !== name) element.className = name; };

const rank = { diverged: 0, unverified: 1, lagging: 2, copying: 3, unknown: 4, in_sync: 5 };
const words = { diverged: "diverged", unverified: "unverified", lagging: "lagging", copying: "copying", unknown: "unknown", in_sync: "in sync" };
const signs = { diverged: "✖", unverified: "?", lagging: "▲", copying: "●", unknown: "?", in_sync: "✔" };
const levels = { diverged: "bad", unverified: "unknown", lagging: "warn", copying: "busy", unknown: "unknown", in_sync: "ok" };
const meanings = { diverged: "Rows are proved to differ", unverified: "It cannot be judged, or only in part", lagging: "Changes wait to be applied", copying: "Existing rows are being copied", unknown: "Nobody has looked yet", in_sync: "Proved equal and caught up" };

const STALE_AFTER = 5000;
const HISTORY = 15 * 60_000;
const TAIL_SHOWN = 100;
const TAIL_KEPT = 1000;

const tables = new Map();
const rows = new Map();
let head = null;
let skew = 0;
let stale = false;

// ---- words for numbers, shares and times

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat(undefined, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const exact = new Intl.NumberFormat(undefined, { minimumFractionDigits: 3, maximumFractionDigits: 3 });
const share = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });
const dateTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const dayTime = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const shortDate = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

const unknown = (value) => value === null || value === undefined;
const number = (value) => (unknown(value) ? "–" : whole.format(value));
const decimal = (value) => (unknown(value) ? "–" : fine.format(value));
const now = () => Date.now() + skew;

// A share never rounds up to 100: what is not all is not all.
function percent(value) {
  if (unknown(value)) return "–";
  return `${share.format(value < 100 ? Math.min(Math.floor(value * 100) / 100, 99.99) : value)} %`;
}

function span(seconds) {
  if (seconds < 0) return "0 s";
  if (seconds < 120) return `${Math.floor(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${whole.format(Math.floor(seconds / 86400))} d`;
}

// The agent writes numbers with commas and times of day in UTC; the reader has habits of their own.
function localized(text) {
  const grouped = text.replace(/\b\d{1,3}(?:,\d{3})+\b/g, (digits) => whole.format(Number(digits.replaceAll(",", ""))));
  return grouped.replace(/\b(through|since|last proof) (\d\d):(\d\d):(\d\d)\b/g, (_, word, hours, minutes, seconds) => {
    const time = new Date(now());
    time.setUTCHours(Number(hours), Number(minutes), Number(seconds), 0);
    return `${word} ${dayTime.format(time)}`;
  });
}

// A relative time, and in its place the absolute one on hover and on focus.
const ages = new Set();
function makeAge(after = " ago", before = "") {
  const element = make("time", "age");
  const age = { element, relative: make("span", "relative", "–"), absolute: make("span", "absolute"), at: null, before, after };
  element.append(age.relative, age.absolute);
  ages.add(age);
  return age;
}
function setAge(age, time) {
  if (age.time === time) return;
  age.time = time;
  age.at = time ? Date.parse(time) : null;
  if (time) {
    const at = new Date(age.at);
    age.element.dateTime = time;
    age.element.title = dateTime.format(at);
    set(age.absolute, Math.abs(now() - age.at) < 43_200_000 ? dayTime.format(at) : shortDate.format(at));
  } else {
    age.element.removeAttribute("title");
    set(age.absolute, "–");
  }
  tick(age);
}
function tick(age) {
  if (age.row?.skipped) return;
  const text = age.at === null ? "–" : age.before + span((now() - age.at) / 1000) + age.after;
  if (age.text === text) return;
  age.text = text;
  age.relative.textContent = text;
}
function agedCell(time) {
  const cell = make("td");
  const age = makeAge();
  age.element.tabIndex = 0;
  setAge(age, time);
  cell.append(age.element);
  return cell;
}

// ---- the head

// How far behind the target is cannot be known while the source is not heard.
const lagNow = () => (!head.streaming ? null : head.feed ? head.feed.lag_records : head.lag.seconds);

function showHead() {
  set(byId("about"), `${head.database} · ${head.pipeline} · ${head.version}${head.applies ? " · copies and applies" : " · only reads"}`);
  showSentence();
  const { changes, lag, runway } = head;
  set(byId("changes"), number(changes.total));
  set(byId("changes-more"), `${number(changes.since_start)} since this start, ${decimal(changes.per_second)} per second`);
  const delay = `end-to-end delay ${unknown(lag.delay_seconds) ? "–" : `${exact.format(lag.delay_seconds)} s`}`;
  set(byId("lag"), head.feed ? number(lagNow()) : decimal(lagNow()));
  const elsewhere = head.feed?.partitions.some((place) => unknown(place.lag_records));
  set(byId("lag-unit"), !head.feed ? "s behind" : elsewhere ? "records behind of what is read here" : "records behind in Kafka");
  set(byId("lag-more"), head.feed && head.applies ? `PostgreSQL ${decimal(head.streaming ? lag.seconds : null)} s behind, ${delay}` : delay);
  const whose = head.feed ? "the connector's" : "our";
  set(byId("runway"), unknown(runway.seconds) ? "–" : span(runway.seconds));
  set(byId("runway-more"), unknown(runway.seconds) ? `not known: when the binlog will no longer hold ${whose} position` : `until the binlog no longer holds ${whose} position`);
  showConnections();
  showFeed();
}

function showSentence() {
  let { level, sign, text, others } = head ? head.sentence : { level: "busy", sign: "●", text: "Connecting to the agent.", others: [] };
  text = localized(text);
  let below = others.map((other) => ({ ...other, text: localized(other.text) }));
  if (stale) {
    if (head) below = [{ level, sign, text: `then: ${text}` }, ...below];
    [level, sign, text] = ["bad", "✖", head ? `Stale since ${dayTime.format(new Date(stale))}: the agent does not answer.` : "The agent does not answer."];
  }
  const sentence = byId("sentence");
  set(sentence.querySelector(".sign"), sign);
  set(sentence.querySelector(".text"), text);
  setClass(sentence, `sentence ${level}`);
  setClass(byId("verdict"), `verdict is-${level}`);
  speak(level, text);
  const shown = below.slice(0, 5).map((other) => `${other.sign} ${other.text}`);
  if (below.length > shown.length) shown.push(`and ${number(below.length - shown.length)} more`);
  const list = byId("others");
  const key = shown.join("\n");
  if (list.dataset.shown !== key) {
    list.dataset.shown = key;
    list.replaceChildren(...shown.map((line, i) => make("li", below[i] && i < 5 ? below[i].level : "", line)));
  }
  const cutover = byId("cutover");
  const first = head?.cutover.blockers[0];
  const ready = head?.cutover.ready && !stale;
  const reason = stale ? "the agent does not answer" : first ? localized(first.message) : "not known yet";
  const more = !stale && head?.cutover.blockers.length > 1 ? `, and ${number(head.cutover.blockers.length - 1)} more` : "";
  set(cutover, ready ? "✔ Cut over now: yes" : `✖ Cut over now: no, ${reason}${more}`);
  setClass(cutover, `cutover ${ready ? "ok" : "bad"}`);
}

// What is read aloud follows the meaning, not each second's numbers.
let spokenKey = "";
function speak(level, text) {
  const key = level + text.replace(/\d[\d.,:\s]*/g, "#");
  if (key === spokenKey) return;
  spokenKey = key;
  set(byId("spoken"), text);
}

const sides = { mysql: "MySQL", postgres: "PostgreSQL", history: "History", redis: "Redis", kafka: "Kafka", connect: "Connect" };
const states = { up: ["✔ connected", "ok"], warning: ["▲ look here", "warn"], down: ["✖ away", "bad"] };

const configured = () => head.connections.filter((connection) => connection.state !== "not_configured");
const connected = () => configured().filter((connection) => connection.state !== "down").length;

const seenOf = (connector) => ["FAILED", "PURGED", "TAKEN"].includes(connector?.state);

function showConnections() {
  const used = configured();
  set(byId("up"), number(connected()));
  set(byId("up-unit"), `of ${number(used.length)} connected`);
  const list = byId("connections");
  const key = JSON.stringify([head.connections, head.feed?.connector?.state]);
  if (list.dataset.shown === key) return;
  list.dataset.shown = key;
  list.replaceChildren(...used.map((connection) => {
    const item = make("li");
    // Connect answers where it is the connector that failed; what that says stands below.
    const failed = connection.name === "connect" && connection.state === "down" && seenOf(head.feed?.connector);
    const [text, level] = failed ? [`✖ connector ${head.feed.connector.state.toLowerCase()}`, "bad"] : states[connection.state] || [connection.state, ""];
    const age = makeAge("", "for ");
    age.element.tabIndex = 0;
    setAge(age, connection.since);
    item.append(make("span", "", sides[connection.name] || connection.name), make("span", level, text), age.element);
    for (const message of failed ? [] : connection.messages) item.append(make("span", "why", message));
    return item;
  }));
}

// ---- Kafka: the connectors, the agents that share the partitions, the topics

const runs = { RUNNING: ["✔", "ok"], PAUSED: ["▲", "warn"], STOPPED: ["▲", "warn"], REMOVED: ["▲", "warn"], STARTING: ["●", "busy"], MISSING: ["●", "busy"], RESTARTING: ["●", "busy"], UNASSIGNED: ["▲", "warn"] };
function stateOf(state) {
  const [sign, level] = runs[state] || ["✖", "bad"];
  return make("span", level, `${sign} ${state.toLowerCase()}`);
}

function thing(name, state, about, ...more) {
  const box = make("div", "thing");
  const first = make("p");
  first.append(make("strong", "", `${name} `), state, make("span", "quiet", about ? ` ${about}` : ""));
  box.append(first, ...more);
  return box;
}

function connectorParts({ connector }) {
  const connect = head.connections.find(({ name }) => name === "connect");
  if (!connect || connect.state === "not_configured") return [quiet("No address of Kafka Connect is set: the agent does not see who fills the topics.")];
  // What was seen before Connect went away is not how it is.
  const seen = connect.state !== "down" || seenOf(connector);
  if (!connector || !seen) return [make("p", "bad", `✖ ${connect.messages[0] ?? "Kafka Connect does not answer"}`)];
  const more = connector.tasks.map((task) => {
    const line = make("p", "", `task ${task.id} `);
    line.append(stateOf(task.state), make("span", "quiet", ` on ${task.worker}`));
    if (task.trace[0]) line.append(make("br"), make("span", "bad", task.trace[0]));
    return line;
  });
  if (!connector.tasks.some((task) => task.trace[0]) && connector.trace[0]) more.push(make("p", "bad", connector.trace[0]));
  if (connector.lost) more.push(make("p", "bad", connector.lost));
  if (connector.file) more.push(quiet(`Stored its place at ${connector.file}, byte ${number(connector.pos)}.`));
  if (connector.drift.length) more.push(make("p", "warn", `▲ Changed by somebody: ${connector.drift.join(", ")}`));
  for (const line of connector.weak) more.push(make("p", "warn", `▲ ${line}`));
  const again = connector.restarts ? `, started again ${number(connector.restarts)} times` : "";
  const sinks = connector.sinks.map((sink) => thing(sink.name, stateOf(sink.state), `somebody else's sink, reads ${number(sink.tables)} of our topics`));
  return [thing(connector.name, stateOf(connector.state), `reads MySQL${again}`, ...more), ...sinks];
}

const agentName = (agents, id) => {
  const agent = agents.find((known) => known.id === id);
  return !agent ? "nobody: the last one is gone" : `${agent.address}${agent.this ? " (this one)" : ""}`;
};

function showFeed() {
  const { feed } = head;
  byId("feed").hidden = !feed;
  if (!feed) return;
  const show = (id, seen, parts) => {
    const box = byId(id);
    const key = JSON.stringify(seen);
    if (box.dataset.shown === key) return;
    box.dataset.shown = key;
    box.lastElementChild.replaceChildren(...parts());
  };
  show("feed-connector", [feed.connector, head.connections.find(({ name }) => name === "connect")], () => connectorParts(feed));
  byId("feed-agents").hidden = feed.agents.length < 2;
  show("feed-agents", feed.agents, () => [grid(["Agent", "Partitions", "Since"], feed.agents.map((agent) => [
    `${agent.address}${agent.this ? " (this one)" : ""}${agent.leads ? ", cares for the connector" : ""}`, number(agent.partitions), agedCell(agent.since),
  ]))]);
  show("feed-partitions", [feed.partitions, feed.partitions_total, feed.aside, feed.agents.map((agent) => agent.id)], () => {
    if (!feed.partitions.length) return [quiet("Nothing was read yet.")];
    const shared = feed.agents.length > 1;
    const parts = [grid(["Table", "Partition", "Records behind", ...(shared ? ["Read by"] : [])], feed.partitions.map((place) => [
      unqualified(place.table ?? place.topic), number(place.partition), number(place.lag_records), ...(shared ? [agentName(feed.agents, place.owner)] : []),
    ]))];
    if (feed.partitions_total > feed.partitions.length) parts.push(quiet(`and ${number(feed.partitions_total - feed.partitions.length)} more partitions that are not further behind`));
    if (feed.aside) parts.push(make("p", "warn", `▲ ${number(feed.aside)} records could not be taken as changes: see /kafka-status`));
    return parts;
  });
}

// ---- fifteen minutes as a small line; where nobody looked, the line has a gap

const lines = [["changes", "Changes per second", () => head.changes.per_second, decimal], ["lag", "Lag", lagNow, (value) => (head.feed ? `${number(value)} records` : `${decimal(value)} s`)],
  ["runway", "Runway", () => head.runway.seconds, span, true], ["up", "Connections", () => connected(), number, true]];
const kept = new Map(lines.map(([name]) => [name, []]));
const SVG = "http://www.w3.org/2000/svg";

function remember() {
  if (!head) return;
  const at = Date.now();
  for (const [name, title, read, print, least] of lines) {
    const values = kept.get(name);
    values.push([at, stale ? null : read() ?? null]);
    while (values.length && at - values[0][0] > HISTORY) values.shift();
    drawLine(name, title, values, at, print, least);
  }
}

// The window grows with what is known, up to fifteen minutes.
function drawLine(name, title, values, at, print, least) {
  const box = byId(`${name}-line`);
  if (!box.firstChild) {
    const svg = document.createElementNS(SVG, "svg");
    for (const [key, value] of [["viewBox", "0 0 100 24"], ["preserveAspectRatio", "none"], ["role", "img"]]) svg.setAttribute(key, value);
    svg.append(document.createElementNS(SVG, "path"));
    box.append(svg, make("span", "extent"));
  }
  const known = values.filter(([, value]) => value !== null);
  const most = known.reduce((top, [, value]) => Math.max(top, value), 0);
  const shown = Math.min(HISTORY, Math.max(60_000, at - (values[0]?.[0] ?? at)));
  let path = "";
  let before = null;
  for (const [time, value] of values) {
    if (value !== null) {
      const point = `${(100 - ((at - time) / shown) * 100).toFixed(2)} ${(23 - (most > 0 ? value / most : 0) * 21).toFixed(2)}`;
      // A lone point is a dot as wide as the stroke's cap.
      path += before !== null && time - before < 15_000 ? `L${point}` : `M${point}h.01`;
    }
    before = value === null ? null : time;
  }
  const [svg, extent] = box.children;
  svg.firstChild.setAttribute("d", path);
  const since = values.length ? span((at - values[0][0]) / 1000) : "0 s";
  const extreme = least ? `at least ${print(known.reduce((low, [, value]) => Math.min(low, value), Infinity))}` : `at most ${print(most)}`;
  const text = known.length ? `last ${since}, ${extreme}` : "";
  set(extent, text);
  svg.setAttribute("aria-label", `${title}: ${text || "not known"}`);
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
  const cell = (className, label) => {
    const box = make("span", className);
    const value = make("span", "value");
    if (label) box.append(make("span", "label", `${label} `));
    box.append(value);
    summary.append(box);
    return value;
  };
  const row = { element, summary, name: cell("name"), status: cell("status"), meter: cell("meter"), last: cell("last", "Last change"), lag: cell("lag", "Lag"), proved: cell("proved", "Proved through"), findings: cell("found", "Findings"), detail: null };
  const track = make("span", "track");
  row.fill = make("span", "fill");
  row.numbers = make("span", "numbers");
  track.append(row.fill);
  row.meter.append(track, row.numbers);
  row.lastWord = make("span", "op");
  row.lastAge = makeAge();
  row.last.append(row.lastWord, row.lastAge.element);
  row.provedAge = makeAge();
  row.proved.append(row.provedAge.element);
  // What is scrolled away need not tell the time.
  row.lastAge.row = row.provedAge.row = row;
  element.addEventListener("contentvisibilityautostatechange", (event) => {
    if (event.target !== element) return;
    row.skipped = event.skipped;
    tick(row.lastAge);
    tick(row.provedAge);
  });
  summary.addEventListener("click", () => toggle(row, name));
  element.append(summary);
  return row;
}

// A table's name as it is known in its database.
function unqualified(name) {
  const schema = head.database ? `${head.database}.` : "";
  return schema && name.startsWith(schema) ? name.slice(schema.length) : name;
}

function showRow(row, table) {
  set(row.name, unqualified(table.table));
  row.name.title = table.table;
  set(row.status, `${signs[table.status]} ${words[table.status]}${table.paused ? ", paused" : ""}`);
  row.status.title = meanings[table.status];
  setClass(row.status, `value ${levels[table.status]}`);
  const { copy } = table;
  const copying = table.status === "copying" && copy;
  const part = copying ? (copy.rows_expected ? (copy.rows_done / copy.rows_expected) * 100 : null) : table.sync_percentage;
  // A bar is full only when it is all.
  row.fill.style.width = `${unknown(part) ? 0 : part < 100 ? Math.min(part, 99) : 100}%`;
  setClass(row.fill, `fill ${copying ? "is-copy" : ""}`);
  if (copying) {
    const rate = unknown(copy.rows_per_second) ? "" : `, ${number(copy.rows_per_second)} per second`;
    const left = unknown(copy.seconds_left) ? "" : `, about ${span(copy.seconds_left)} left`;
    set(row.numbers, `${number(copy.rows_done)} of ${number(copy.rows_expected)} rows copied, ${percent(part === null ? null : Math.min(part, 99.99))}${rate}${left}`);
  } else if (unknown(table.source_rows) && unknown(table.target_rows)) {
    set(row.numbers, "– rows");
  } else {
    const compared = table.check ? `, comparing ${number(table.check.rows)} of ${number(table.check.expected)}` : "";
    set(row.numbers, `${number(table.target_rows)} of ${number(table.source_rows)} rows${table.rows_estimated ? " (estimate)" : ""}, ${percent(table.sync_percentage)}${compared}`);
  }
  set(row.lastWord, table.last ? table.last.operation : "");
  setAge(row.lastAge, table.last?.timestamp);
  set(row.lag, unknown(table.lag_seconds) || !head.streaming ? "–" : table.lag_seconds < 100 ? `${decimal(table.lag_seconds)} s` : span(table.lag_seconds));
  setAge(row.provedAge, table.verified_through?.time);
  const found = ["missing", "extra", "changed"].filter((verdict) => table.findings[verdict]).map((verdict) => `${number(table.findings[verdict])} ${verdict}`);
  set(row.findings, table.stopped ? "✖ not applied" : found.length ? found.join(", ") : table.unverified.length ? `${number(table.unverified.length)} unverified` : table.verified_through ? "none" : "–");
  setClass(row.findings, `value ${found.length || table.stopped ? "bad" : table.unverified.length ? "unknown" : "quiet"}`);
  if (row.detail) refresh(row, table);
}

function removeTable(name) {
  const row = rows.get(name);
  tables.delete(name);
  rows.delete(name);
  if (!row) return;
  row.element.remove();
  ages.delete(row.lastAge);
  ages.delete(row.provedAge);
}

// Only rows that stand in the wrong place are moved, and none loses the focus by it.
function placeRows() {
  const list = byId("tables");
  const focused = document.activeElement;
  const wanted = byId("filter").value.trim().toLowerCase();
  const matches = (table) => !wanted || table.table.toLowerCase().includes(wanted) || words[table.status].startsWith(wanted);
  const visible = [...tables.values()].filter(matches).sort(order);
  const shown = new Set(visible.map((table) => rows.get(table.table).element));
  for (const element of [...list.children]) if (!shown.has(element)) element.remove();
  let at = list.firstElementChild;
  for (const table of visible) {
    const { element } = rows.get(table.table);
    if (element === at) {
      at = at.nextElementSibling;
    } else if (at && at.nextElementSibling === element) {
      // One row went down: moving it is cheaper than moving all that follow.
      list.append(at);
      at = element.nextElementSibling;
    } else {
      list.insertBefore(element, at);
    }
  }
  if (focused !== document.activeElement && list.contains(focused)) focused.focus({ preventScroll: true });
  set(byId("count"), visible.length === tables.size ? number(tables.size) : `${number(visible.length)} of ${number(tables.size)}`);
  const none = byId("no-tables");
  none.hidden = visible.length > 0;
  set(none, tables.size ? "No table matches the filter." : "No tables yet.");
}

// ---- one table

async function ask(path, options) {
  const response = await fetch(path, options).catch(() => { throw new Error("the agent does not answer"); });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.detail || `the agent answered ${response.status}`);
  return body;
}
const post = (path, body) => ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body ?? {}) });

function toggle(row, name) {
  if (row.detail) {
    row.detail.element.remove();
    row.detail = null;
    row.summary.setAttribute("aria-expanded", "false");
    return;
  }
  const element = make("div", "detail");
  element.setAttribute("role", "region");
  element.setAttribute("aria-label", `Table ${name}`);
  const part = (title) => {
    const box = make("section");
    const body = make("div");
    box.append(make("h3", "", title), body);
    box.hidden = true;
    element.append(box);
    return { show(...content) { box.hidden = content.length === 0; body.replaceChildren(...content); } };
  };
  row.detail = { element, actions: actions(name), key: "" };
  element.append(row.detail.actions.box);
  Object.assign(row.detail, { known: part("What to know"), findings: part("Findings"), feed: part("Kafka"), latest: part("Latest records"), columns: part("Columns"), schema: part("Schema changes seen"), checks: part("Checks run") });
  row.detail.actions.again.addEventListener("click", () => fillLatest(row.detail, name));
  row.summary.setAttribute("aria-expanded", "true");
  row.element.append(element);
  refresh(row, tables.get(name));
  fillLatest(row.detail, name);
}

// What is asked for is asked again when the table's standing changed, not with each of its changes.
function refresh(row, table) {
  const { detail } = row;
  showActions(detail.actions, table);
  showKnown(detail, table);
  const key = JSON.stringify([table.status, table.findings, !table.check, table.unverified.length, table.stopped]);
  if (key === detail.key || detail.waiting) return;
  detail.waiting = true;
  setTimeout(() => {
    detail.waiting = false;
    if (row.detail === detail && tables.has(table.table)) refresh(row, tables.get(table.table));
  }, 2000);
  detail.key = key;
  fill(detail, table.table);
}

const said = (error) => make("p", "bad", `✖ ${error.message}`);
const quiet = (text) => make("p", "quiet", text);

function showKnown(detail, table) {
  const shown = [];
  if (table.target) shown.push(["quiet", `Compared with ${table.target} in PostgreSQL.`]);
  if (table.verified_through) shown.push(["quiet", `Proved equal over ${number(table.verified_through.rows)} rows through ${table.verified_through.position}.`]);
  if (table.stopped) shown.push(["bad", `✖ Not applied any more: ${table.stopped}`]);
  for (const entry of table.unverified) shown.push(["unknown", `? ${entry.columns.length ? `${entry.columns.join(", ")}: ` : ""}${entry.reason}`]);
  for (const [column, count] of Object.entries(table.representation_only)) shown.push(["quiet", `${column}: ${number(count)} cells differ only in representation, which a policy accepts`]);
  for (const note of table.notes) shown.push(["quiet", note]);
  const counts = ["read", "insert", "update", "delete", "truncate"].map((operation) => `${number(table.operations[operation])} ${operation}`).join(", ");
  shown.push(["quiet", `Since the beginning: ${counts}.`]);
  const key = JSON.stringify(shown);
  if (detail.shownKnown === key) return;
  detail.shownKnown = key;
  detail.known.show(...shown.map(([level, text]) => make("p", level, text)));
}

async function fill(detail, name) {
  const path = encodeURIComponent(name);
  const [table, findings, checks, kafka] = await Promise.allSettled([ask(`/api/v1/tables/${path}`), ask(`/api/v1/findings?state=open&limit=100&table=${path}`), ask("/api/v1/checks"), head.feed ? ask("/kafka-status") : null]);
  if (kafka.value) {
    const places = kafka.value.consumers.filter((place) => place.table === name).map((place) => [
      place.topic, number(place.partition), number(place.next_offset), number(place.lag_records), kafka.value.members.length ? agentName(kafka.value.members, place.owner) : "this agent",
    ]);
    detail.feed.show(places.length ? grid(["Topic", "Partition", "Next offset", "Records behind", "Read by"], places) : quiet("Nothing of its topic was read yet."));
  }
  detail.findings.show(findings.reason ? said(findings.reason) : findingsTable(findings.value));
  if (table.reason) {
    detail.columns.show(said(table.reason));
  } else {
    const why = (column) => table.value.unverified.find((entry) => entry.columns.includes(column.name))?.reason;
    detail.columns.show(grid(["Column", "MySQL", "PostgreSQL", "Compared"], table.value.columns.map((column) => [
      `${column.name}${column.key ? " (key)" : ""}`, column.source_type, column.target_type ?? "–", column.compared ? "✔ in canonical form" : `? no${why(column) ? `: ${why(column)}` : ""}`,
    ])));
    const seen = table.value.schema_changes.map((change) => [change.kind, agedCell(change.timestamp), change.position]).reverse();
    detail.schema.show(...(seen.length ? [grid(["What", "When", "Position"], seen)] : []));
  }
  if (checks.reason) {
    detail.checks.show(said(checks.reason));
  } else {
    const ran = checks.value.checks.filter((check) => check.results[name]).slice(0, 5).map((check) => {
      const result = check.results[name];
      return [result.verdict, check.mode, number(result.rows_compared), number(result.findings_total), `${decimal(result.seconds)} s`, check.asked_by, check.ended_at ? agedCell(check.ended_at) : check.state];
    });
    detail.checks.show(ran.length ? grid(["Result", "Of", "Rows compared", "Findings", "Took", "Asked by", "Ended"], ran) : quiet("None by this agent yet."));
  }
}

function actions(name) {
  const box = make("div", "actions");
  const note = make("span", "quiet");
  note.id = `note-${Math.random().toString(36).slice(2)}`;
  const button = (text, work) => {
    const element = make("button", "", text);
    element.type = "button";
    element.setAttribute("aria-describedby", note.id);
    if (work) element.addEventListener("click", async () => {
      try {
        set(note, await work());
      } catch (error) {
        set(note, `✖ ${error.message}`);
      }
    });
    box.append(element);
    return element;
  };
  const path = encodeURIComponent(name);
  const check = button("Check now", async () => `Check ${(await post("/api/v1/checks", { tables: [name], full: true })).id} was started.`);
  const pause = button("Pause checks", async () => {
    const after = await post(`/api/v1/tables/${path}/${tables.get(name)?.paused ? "resume" : "pause"}`);
    tables.set(name, after);
    later(name);
    return after.paused ? "Checks by schedule are paused." : "Checks by schedule go on.";
  });
  const again = button("Read latest records again");
  const why = make("span", "quiet");
  box.append(note, why);
  return { box, check, pause, again, why };
}

function showActions({ check, pause, again, why }, table) {
  let reason = "";
  if (stale) reason = "The agent does not answer.";
  else if (table.check) reason = `A check runs: ${number(table.check.rows)} of ${number(table.check.expected)} rows.`;
  else if (!table.target) reason = "There is no table in the target to compare with.";
  check.disabled = reason !== "";
  pause.disabled = again.disabled = Boolean(stale);
  set(pause, table.paused ? "Resume checks" : "Pause checks");
  set(why, reason ? `Check now: ${reason}` : "");
}

function grid(titles, body) {
  const scroll = make("div", "scroll");
  scroll.tabIndex = 0;
  const table = make("table");
  const headRow = make("tr");
  headRow.append(...titles.map((title) => {
    const cell = make("th", "", title);
    cell.scope = "col";
    return cell;
  }));
  const thead = make("thead");
  thead.append(headRow);
  const tbody = make("tbody");
  for (const line of body) {
    const element = make("tr");
    element.append(...line.map((text) => (text instanceof Node ? text : make("td", "", text))));
    tbody.append(element);
  }
  table.append(thead, tbody);
  scroll.append(table);
  return scroll;
}

const causes = { never_captured: "never captured", captured_not_applied: "captured, not applied", overwritten: "overwritten on the target" };

function findingsTable(page) {
  if (!page.findings.length) return quiet("None open.");
  const found = page.findings.map((finding) => {
    const key = Object.entries(finding.key).map(([column, value]) => `${column} = ${value}`).join(", ");
    const copies = finding.copies_source === undefined ? "–" : `no key; ${number(finding.copies_source)} on MySQL, ${number(finding.copies_target)} on PostgreSQL`;
    const why = finding.cause ? causes[finding.cause] ?? finding.cause : "cause not known";
    return [make("td", "bad", finding.verdict), key || copies, finding.columns.join(", ") || "–", `${why}; settled by ${finding.settled_by}`, agedCell(finding.found_at)];
  });
  const box = grid(["Verdict", "Key", "Columns", "Why", "Since"], found);
  if (page.total_open > found.length) box.append(quiet(`and ${number(page.total_open - found.length)} more`));
  return box;
}

// ---- latest records of both sides, row beside row

async function fillLatest(detail, name) {
  const path = encodeURIComponent(name);
  detail.latest.show(quiet("Reading …"));
  try {
    const [latest, table] = await Promise.all([ask(`/latest-records/${path}?limit=5`), ask(`/api/v1/tables/${path}`)]);
    detail.latest.show(bothSides(latest, table.columns.filter((column) => column.key).map((column) => column.name)));
  } catch (error) {
    detail.latest.show(said(error));
  }
}

// Cells of a row by name without case: the target may spell its columns otherwise.
const cellsOf = (row) => new Map(Object.entries(row).map(([column, cell]) => [column.toLowerCase(), cell]));

function bothSides(latest, key) {
  const source = latest.mysql_latest.map(cellsOf);
  const target = latest.postgres_latest.map(cellsOf);
  if (!source.length && !target.length) return quiet("Both sides are empty.");
  const named = latest.mysql_latest[0] ?? latest.postgres_latest[0];
  const columns = Object.keys(named);
  const keyed = key.length ? key : columns;
  const identity = (row) => JSON.stringify(keyed.map((column) => loose(row.get(column.toLowerCase()))));
  const waiting = target.map((row) => [identity(row), row]);
  const take = (wanted) => {
    const at = waiting.findIndex(([known]) => known === wanted);
    return at < 0 ? undefined : waiting.splice(at, 1)[0][1];
  };
  const pairs = source.map((row) => [row, take(identity(row))]);
  for (const [, row] of waiting) pairs.push([undefined, row]);
  const box = make("div", "sides");
  for (const [title, side] of [["MySQL", 0], ["PostgreSQL", 1]]) {
    const part = make("div");
    const body = pairs.map((pair) => {
      if (!pair[side]) {
        const gap = make("td", "gap", "not among the latest here");
        gap.colSpan = columns.length;
        return [gap];
      }
      return columns.map((column) => {
        const mine = pair[side].get(column.toLowerCase());
        const other = pair[1 - side];
        const cell = make("td", "", mine === undefined ? "–" : mine ?? "NULL");
        if (unknown(mine)) cell.classList.add("gap");
        if (other && loose(other.get(column.toLowerCase())) !== loose(mine)) {
          cell.classList.add("differs");
          cell.prepend(make("span", "unseen", "differs: "));
        }
        cell.title = mine ?? "";
        return cell;
      });
    });
    const table = grid(columns, body);
    table.setAttribute("aria-label", `Latest records in ${title}`);
    part.append(make("p", "side-name", title), table);
    box.append(part);
  }
  const all = make("div");
  all.append(box, quiet("Each side is read by itself: a change on its way shows here. What is proved stands under Findings."));
  return all;
}

// Both sides print some values differently (fractions, booleans): what is marked is for the eye.
function loose(value) {
  if (unknown(value)) return null;
  const text = String(value).trim();
  if (/^-?\d+(\.\d+)?$/.test(text)) return text.replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "").replace(/^(-?)0+(?=\d)/, "$1");
  return text.replace(/\+00$/, "").replace(/(:\d\d\.\d*?)0+$/, "$1").replace(/\.$/, "").replace(/^\\x/, "0x");
}

// ---- tables that are not watched

async function fillUnwatched() {
  const box = byId("unwatched-list");
  box.replaceChildren(quiet("Looking …"));
  try {
    const found = await ask("/discover-tables");
    const names = found.mysql_tables.all.filter((name) => !found.current_monitoring.includes(name));
    box.replaceChildren(names.length ? grid(["Table", "Why not", ""], names.map((name) => [name, found.reasons[name] ?? "not seen yet", addCell(name)])) : quiet("Every table of MySQL is watched."));
  } catch (error) {
    box.replaceChildren(said(error));
  }
}

// Nothing is written to a database without a second, named confirmation.
function addCell(name) {
  const cell = make("td", "actions");
  const begin = () => {
    const add = make("button", "", "Add");
    add.type = "button";
    add.setAttribute("aria-label", `Add ${name}`);
    add.addEventListener("click", () => {
      const yes = make("button", "", `Yes, add ${name}`);
      const no = make("button", "", "No");
      yes.type = no.type = "button";
      yes.addEventListener("click", async () => {
        yes.disabled = no.disabled = true;
        try {
          const answer = await post(`/table-monitor/add-table/${encodeURIComponent(name)}?override=true`);
          cell.replaceChildren(make("span", "ok", `✔ ${answer.message}`));
        } catch (error) {
          cell.replaceChildren(make("span", "bad", `✖ ${error.message}`));
        }
      });
      no.addEventListener("click", () => { begin(); cell.firstElementChild.focus(); });
      cell.replaceChildren(make("span", "", head?.applies ? `The rows of ${name} will be written to PostgreSQL.` : `${name} will be watched; the agent only reads.`), yes, no);
      no.focus();
    });
    cell.replaceChildren(add);
  };
  begin();
  return cell;
}

// ---- the tail

let tail = [];
let paused = false;
let unseen = 0;

function eventOf(event) {
  const item = make("li");
  const button = make("button", "event");
  button.type = "button";
  button.setAttribute("aria-expanded", "false");
  const age = makeAge();
  setAge(age, event.timestamp);
  button.append(age.element, make("span", "op", event.operation), make("span", "name", event.table), make("span", "trace", `trace ${event.trace_id}`));
  item.append(button);
  button.addEventListener("click", () => {
    if (item.children.length > 1) {
      item.lastElementChild.remove();
      button.setAttribute("aria-expanded", "false");
    } else {
      button.setAttribute("aria-expanded", "true");
      item.append(story(event));
    }
  });
  return { event, item, age };
}

// The trace id of a change, and what else history knows of its row.
function story(event) {
  const box = make("div", "story");
  box.append(make("p", "", `Trace id ${event.trace_id}`), quiet(`Committed ${dateTime.format(new Date(event.timestamp))} at ${event.position}`));
  const more = make("div");
  more.append(quiet("Looking for the row's story …"));
  box.append(more);
  ask("/cdc/events?limit=1000").then(({ events }) => {
    const own = event.key_hash ?? events.find((other) => other.trace_id === event.trace_id)?.key_hash;
    const same = own ? events.filter((other) => other.table === event.table && other.key_hash === own) : [];
    more.replaceChildren(same.length ? grid(["Operation", "When", "Position", "Trace id"], same.slice(0, 20).map((other) => [other.operation, agedCell(other.timestamp), other.position, other.trace_id])) : quiet("Not among the last 1,000 changes any more, or a row without key."));
    if (same.length) more.prepend(quiet(`This row in the last 1,000 changes: ${number(same.length)}.`));
  }, (error) => more.replaceChildren(said(error)));
  return box;
}

function showTail() {
  const name = byId("tail-table").value.trim().toLowerCase();
  const operation = byId("tail-operation").value;
  const list = byId("events");
  const shown = [];
  for (const event of tail) {
    if ((operation && event.operation !== operation) || (name && !event.table.toLowerCase().includes(name))) continue;
    shown.push(event);
    if (shown.length === TAIL_SHOWN) break;
  }
  const built = list.built ?? new Map();
  const next = new Map(shown.map((event) => [event, built.get(event) ?? eventOf(event)]));
  for (const [event, { item, age }] of built) {
    if (next.has(event)) continue;
    item.remove();
    ages.delete(age);
  }
  list.built = next;
  let at = list.firstElementChild;
  for (const { item } of next.values()) {
    if (item === at) at = at.nextElementSibling;
    else list.insertBefore(item, at);
  }
  byId("no-events").hidden = shown.length > 0;
  set(byId("no-events"), tail.length ? "None that match." : "None since this agent remembers.");
}

function showPause() {
  const button = byId("pause");
  button.setAttribute("aria-pressed", String(paused));
  set(button, !paused ? "Pause" : unseen ? `Go on, ${number(unseen)} new` : "Go on");
}

function takeEvents(events) {
  if (!events.length) return;
  tail = [...events.slice().reverse(), ...tail].slice(0, TAIL_KEPT);
  if (paused) unseen += events.length;
  tailChanged = true;
  paint();
}

// ---- the stream: messages are taken as they come, and painted once per frame

let lastMessage = performance.now();
let painting = false;
let tailChanged = false;
const changed = new Set();
let placing = false;

function later(name) {
  changed.add(name);
  placing = true;
  paint();
}

function paint() {
  if (painting) return;
  painting = true;
  requestAnimationFrame(() => {
    painting = false;
    if (!head) return;
    showHead();
    for (const name of changed) {
      const table = tables.get(name);
      if (!table) continue;
      if (!rows.has(name)) rows.set(name, rowOf(name));
      showRow(rows.get(name), table);
    }
    changed.clear();
    if (placing) placeRows();
    placing = false;
    if (tailChanged && !paused) showTail();
    if (tailChanged) showPause();
    tailChanged = false;
  });
}

function take(message, all) {
  lastMessage = performance.now();
  const { tables: told, removed = [], ...rest } = message;
  const first = head === null;
  // Every row's lag is unknown while the source is not heard.
  if (!first && head.streaming !== rest.streaming) for (const name of tables.keys()) changed.add(name);
  head = rest;
  skew = Date.parse(rest.now) - Date.now();
  const gone = all ? [...tables.keys()].filter((name) => !told.some((table) => table.table === name)) : removed;
  for (const name of gone) removeTable(name);
  for (const table of told) {
    tables.set(table.table, table);
    changed.add(table.table);
  }
  placing ||= all || told.length > 0 || gone.length > 0;
  if (stale) setStale(false);
  document.title = `${head.sentence.sign} Plumbline – ${head.database}`;
  paint();
  if (first) remember();
}

function setStale(since) {
  stale = since;
  document.body.classList.toggle("is-stale", Boolean(stale));
  document.title = stale ? "✖ Plumbline – stale" : document.title;
  showSentence();
  for (const [name, row] of rows) if (row.detail && tables.has(name)) showActions(row.detail.actions, tables.get(name));
}

let source = null;
let tried = 0;
function connect() {
  tried = performance.now();
  source?.close();
  source = new EventSource("/api/v1/page/stream");
  source.addEventListener("snapshot", (event) => take(JSON.parse(event.data), true));
  source.addEventListener("patch", (event) => take(JSON.parse(event.data), false));
  source.addEventListener("events", (event) => {
    lastMessage = performance.now();
    takeEvents(JSON.parse(event.data));
  });
}

function watch() {
  const silent = performance.now() - lastMessage;
  if (silent < STALE_AFTER) return;
  if (!stale) setStale(Date.now() - silent);
  // The browser gives up on some failures and waits for ever on others: begin again by ourselves.
  if (performance.now() - tried > STALE_AFTER) connect();
}

// ---- the reader's hands

byId("filter").addEventListener("input", placeRows);
byId("tail-table").addEventListener("input", showTail);
byId("tail-operation").addEventListener("change", showTail);
byId("unwatched").addEventListener("toggle", (event) => event.target.open && fillUnwatched());
byId("pause").addEventListener("click", () => {
  paused = !paused;
  unseen = 0;
  showPause();
  if (!paused) showTail();
});
document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    byId("filter").focus();
    return;
  }
  const row = event.target.closest?.(".row");
  if (event.key === "Escape" && row?.querySelector(".detail")) {
    const summary = row.querySelector(".summary");
    summary.click();
    summary.focus();
  }
  if (!event.target.classList?.contains("summary") || !["ArrowDown", "ArrowUp", "Home", "End"].includes(event.key)) return;
  const list = byId("tables");
  const next = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling, Home: list.firstElementChild, End: list.lastElementChild }[event.key];
  event.preventDefault();
  next?.querySelector(".summary").focus();
});

setInterval(() => {
  watch();
  if (document.hidden || stale) return;
  for (const age of ages) {
    if (age.element.isConnected) tick(age);
    else if (!age.element.closest(".row")) ages.delete(age);
  }
}, 1000);
setInterval(remember, 5000);
connect();
ask("/cdc/events?limit=100").then(({ events }) => {
  const identity = (event) => `${event.trace_id} ${event.table} ${event.operation}`;
  const known = new Set(tail.map(identity));
  tail = [...tail, ...events.filter((event) => !known.has(identity(event)))].slice(0, TAIL_KEPT);
  showTail();
}, () => {});
