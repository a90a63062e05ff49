import { setText } from "./dom.js";
import { Entries, EVENTS, REJECTIONS } from "./entries.js";
import { Faults } from "./faults.js";
import * as format from "./format.js";
import { Overview } from "./overview.js";
import { Rates } from "./rates.js";

const POLL_MS = 1000;
const TIMEOUT_MS = 10000;
const SHOWN = 50;

const get = (id) => document.getElementById(id);
const [state, message, pause, filter, newer] = ["state", "message", "pause", "filter", "newer"].map(get);
const rates = new Rates();
const overview = new Overview(showType);
const events = new Entries(get("events"), EVENTS);
const rejections = new Entries(get("rejections"), REJECTIONS);
const faults = new Faults(async (order) => {
  const answer = await ask("faults", order);
  await poll();
  return answer.faults;
});

let isPaused = false;
let timer = null;
let eventsShown = 0;

async function ask(path, order = undefined) {
  const posted = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(order) };
  const response = await fetch(`/inspect/${path}`, {
    ...(order === undefined ? {} : posted), signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

async function poll() {
  clearTimeout(timer);
  try {
    const type = filter.value === "" ? "" : `&type=${encodeURIComponent(JSON.parse(filter.value))}`;
    const [summary, came, bad, all] = await Promise.all([
      ask("summary"), ask(`events?limit=${SHOWN}${type}`), ask(`bad?limit=${SHOWN}`), get("faults").open ? ask("faults") : null,
    ]);
    show(summary, came.events, bad.bad);
    if (all !== null) faults.update(all.faults);
    setState(isPaused ? "Paused" : "Live", isPaused ? "" : "good");
  } catch (problem) {
    setState(`Not reachable, trying again (${problem.message})`, "bad");
  }
  clearTimeout(timer);
  if (!isPaused) timer = setTimeout(poll, POLL_MS);
}

function show(summary, came, bad) {
  rates.add(summary.time, summary.since, countsOf(summary));
  overview.update(summary, rates);
  faults.showOn(summary.faults);
  showAddresses(summary);
  showFilter(summary.types);
  const total = countsOf(summary).events;
  if (!events.isHeld) eventsShown = total;
  events.update(came);
  newer.hidden = eventsShown >= total;
  setText(newer, `Show ${format.count(total - eventsShown)} newer`);
  rejections.update(bad);
}

function countsOf(summary) {
  const counts = { events: 0, requests: 0 };
  for (const [name, protocol] of Object.entries(summary.protocols)) {
    counts.events += protocol.events;
    counts.requests += protocol.requests;
    counts[`protocol ${name}`] = protocol.events;
  }
  for (const { type, events: byProtocol } of summary.types) {
    counts[`type ${JSON.stringify(type)}`] = Object.values(byProtocol).reduce((sum, count) => sum + count, 0);
  }
  return counts;
}

function showAddresses({ tls, grpc_port: grpcPort }) {
  const [s, grpc] = tls ? ["s", "grpcs"] : ["", "grpc"];
  setText(get("addresses"), `http${s}://${location.host}  ws${s}://${location.host}  ${grpc}://${location.hostname}:${grpcPort}`);
}

function showFilter(types) {
  const values = types.filter(({ type }) => type !== null).map(({ type }) => JSON.stringify(type)).sort();
  const before = [...filter.options].slice(1).map((option) => option.value);
  if (values.join() === before.join()) return;
  const chosen = filter.value;
  if (chosen !== "" && !values.includes(chosen)) values.push(chosen); // it was reset, and may come again
  filter.replaceChildren(filter.options[0], ...values.map((value) => new Option(JSON.parse(value) || "(empty)", value)));
  filter.value = chosen;
}

function showType(type) {
  filter.value = JSON.stringify(type);
  events.close();
  poll();
  get("events").focus();
}

function setState(text, kind) {
  setText(state, text);
  state.className = kind;
}

function say(text) {
  setText(message, text);
}

pause.addEventListener("click", () => {
  isPaused = !isPaused;
  pause.setAttribute("aria-pressed", String(isPaused));
  say("");
  poll();
});

get("reset").addEventListener("click", async () => {
  try {
    await ask("reset", {});
    events.close();
    rejections.close();
    say("Reset: counting from nothing.");
  } catch (problem) {
    say(`Not reset: ${problem.message}`);
  }
  poll();
});

filter.addEventListener("change", () => {
  events.close();
  poll();
});

newer.addEventListener("click", () => {
  events.close();
  poll();
});

get("faults").addEventListener("toggle", poll);

poll();
