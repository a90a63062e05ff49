import { setText } from "./dom.js";
import { Entries } from "./entries.js";
import { FaultHits } from "./fault_hits.js";
import { Faults } from "./faults.js";
import { Filters, whyNone } from "./filters.js";
import * as format from "./format.js";
import { EVENTS, REJECTIONS } from "./kinds.js";
import { Overview } from "./overview.js";
import { Rates } from "./rates.js";
import * as state from "./state.js";
import { Timeline } from "./timeline.js";
import { TypeView } from "./type_view.js";
import { Types } from "./types.js";

const POLL_MS = 1000;
const TIMEOUT_MS = 10000;
const SHOWN = 50;

const get = (id) => document.getElementById(id);
const [status, message, pause, newer] = ["state", "message", "pause", "newer"].map(get);
const rates = new Rates();
const overview = new Overview();
const events = new Entries(get("events"), EVENTS, {
  whole: (event) => ask(`event?number=${event.number}`),
  part: (event, offset) => ask(`data?number=${event.number}&offset=${offset}`),
});
const rejections = new Entries(get("rejections"), REJECTIONS);
const faultHits = new FaultHits();
const timeline = new Timeline();
const typeView = new TypeView(closeType);
const types = new Types(lookAtTypes, showType);
const filters = new Filters(ask, lookAtEvents);
const faults = new Faults(async (order) => {
  const answer = await ask("faults", order);
  if (!isPaused) await poll();
  faults.showOn(answer.faults.filter(({ on }) => on).map(({ fault }) => fault));
  return answer.faults;
});

let isPaused = false;
let timer = null;
let eventsShown = 0;
let lastNumber = null; // of the events when the page was paused
let now = 0; // the collector's
let since = 0; // when it began to count
let turn = 0; // what was asked before is not shown when something else was asked since
const turns = new Map(); // the same of one part of the page, while it is paused

async function ask(path, order = undefined) {
  const posted = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(order) };
  const response = await fetch(`/inspect/${path}`, {
    ...(order === undefined ? {} : posted), signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

/** Asks for all there is, once a second. */
async function poll() {
  clearTimeout(timer);
  turn += 1;
  const mine = turn;
  try {
    const [summary, came, named, bad, hour, type, all] = await Promise.all([
      ask("summary"), ask(eventsPath()), ask(types.path), ask(`bad?limit=${SHOWN}`), ask("timeline"), askForType(),
      get("faults").open ? ask("faults") : null,
    ]);
    if (mine !== turn) return;
    show(summary, came, named, bad.bad);
    timeline.update(hour, now, summary.since);
    typeView.update(type, now, since);
    if (all !== null) faults.update(all.faults);
    showStatus();
  } catch (problem) {
    if (mine !== turn) return;
    setStatus(`Not reachable, trying again (${problem.message})`, "bad");
  }
  clearTimeout(timer);
  if (!isPaused) timer = setTimeout(poll, POLL_MS);
}

/** The type that is looked at; null where there is none. */
async function askForType() {
  const type = state.get("type");
  return type === null ? null : (await ask(`type?type=${encodeURIComponent(type)}`)).found;
}

function eventsPath() {
  const query = new URLSearchParams([["limit", SHOWN], ...state.filters()]);
  if (isPaused && lastNumber !== null) query.set("until", lastNumber);
  return `events?${query}`;
}

/** Another filter: while paused only the events that were there then are looked at. */
async function lookAtEvents() {
  events.close();
  get("export").href = `/inspect/export?${new URLSearchParams(state.filters())}`;
  if (!isPaused) return poll();
  await only(eventsPath(), showEvents);
  await only(`type?type=${encodeURIComponent(state.get("type") ?? "")}`, ({ found }) => {
    typeView.update(state.get("type") === null ? null : found, now, since);
  });
}

async function lookAtTypes() {
  if (!isPaused) return poll();
  await only(types.path, (named) => types.update(named, now));
}

async function only(path, showAnswer) {
  const [part] = path.split("?");
  const mine = (turns.get(part) ?? 0) + 1;
  turns.set(part, mine);
  try {
    const answer = await ask(path);
    if (isPaused && mine === turns.get(part)) showAnswer(answer);
  } catch (problem) {
    say(`Not answered: ${problem.message}`);
  }
}

function show(summary, came, named, bad) {
  now = summary.time;
  since = summary.since;
  if (!isPaused) lastNumber = summary.last_number;
  rates.add(summary.time, summary.since, countsOf(summary));
  overview.update(summary, rates);
  types.update(named, now);
  faults.showOn(summary.faults);
  faultHits.update(summary);
  showAddresses(summary);
  const total = countsOf(summary).events;
  if (!events.isHeld) eventsShown = total;
  newer.hidden = eventsShown >= total;
  setText(newer, `Show ${format.count(total - eventsShown)} newer`);
  showEvents(came);
  rejections.update(bad);
}

function showEvents(came) {
  events.update(came.events, came.events.length === 0 ? whyNone(came) : "");
}

function countsOf(summary) {
  const counts = { events: 0, requests: 0 };
  for (const [name, protocol] of Object.entries(summary.protocols)) {
    counts.events += protocol.events;
    counts.requests += protocol.requests;
    counts[`protocol ${name}`] = protocol.events;
  }
  return counts;
}

function showAddresses({ tls, grpc_port: grpcPort }) {
  const [s, grpc] = tls ? ["s", "grpcs"] : ["", "grpc"];
  setText(get("addresses"), `http${s}://${location.host}  ws${s}://${location.host}  ${grpc}://${location.hostname}:${grpcPort}`);
}

function showType(type) {
  state.set({ type }, true);
  filters.show();
  lookAtEvents();
  get("events").focus();
}

function closeType() {
  state.set({ type: null }, true);
  filters.show();
  lookAtEvents();
  get("events").focus();
}

function showStatus() {
  setStatus(isPaused ? "Paused" : "Live", isPaused ? "" : "good");
}

function setStatus(text, kind) {
  setText(status, text);
  status.className = kind;
}

function say(text) {
  setText(message, text);
}

pause.addEventListener("click", () => {
  isPaused = !isPaused;
  pause.setAttribute("aria-pressed", String(isPaused));
  say("");
  if (!isPaused) {
    poll();
    return;
  }
  turn += 1; // what is on its way comes too late
  clearTimeout(timer);
  showStatus();
});

get("reset").addEventListener("click", async () => {
  try {
    await ask("reset", {});
    events.close();
    rejections.close();
    lastNumber = null;
    say("Reset: counting from nothing.");
  } catch (problem) {
    say(`Not reset: ${problem.message}`);
  }
  poll();
});

newer.addEventListener("click", lookAtEvents);

window.addEventListener("popstate", () => {
  filters.show();
  types.show();
  lookAtEvents();
  if (isPaused) lookAtTypes();
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented) return;
  if (events.closeOne() || rejections.closeOne()) event.preventDefault();
  else if (typeView.isOpen && !event.target.matches("input, select")) closeType();
});

get("to-faults").addEventListener("click", () => {
  get("faults").open = true;
});

get("faults").addEventListener("toggle", () => {
  if (isPaused) only("faults", (answer) => faults.update(answer.faults));
  else poll();
});

get("export").href = `/inspect/export?${new URLSearchParams(state.filters())}`;
poll();
