import { element, keyed, setText, table } from "./dom.js";
import * as format from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const SPARK_WIDTH = 120;
const SPARK_HEIGHT = 28;
const NUMBER = "number";
const WIDE = "number wide"; // left out on a phone

/** The figures at the top, and the tables by protocol and of connections. */
export class Overview {
  #tiles = {};
  #spark;
  #protocols;
  #connections;

  constructor() {
    for (const name of ["Events", "Requests", "Rejected", "Bad events", "Types", "Latency", "Connections", "Counting for"]) {
      this.#tiles[name] = [element("dd"), element("dd", { class: "aside" })];
      document.getElementById("tiles").append(element("div", {}, element("dt", {}, name), ...this.#tiles[name]));
    }
    this.#spark = sparkline();
    this.#tiles.Events[0].parentElement.append(this.#spark);
    this.#protocols = table("Requests and events by protocol", [
      ["Protocol"], ["Requests", WIDE], ["Events", NUMBER], ["per second", NUMBER], ["Rejected", NUMBER],
      ["Latency", NUMBER], ["95 %", WIDE],
    ]);
    document.getElementById("protocols").append(this.#protocols.region);
    this.#connections = table("Live WebSocket connections", [["Client"], ["Group"], ["Open for", NUMBER], ["User agent", "wide"]]);
    document.getElementById("connections").append(this.#connections.region);
  }

  update(summary, rates) {
    this.#updateTiles(summary, rates);
    updateRows(
      this.#protocols.body, Object.entries(summary.protocols), ([name]) => name, ([name]) => format.PROTOCOLS[name],
      ([name, { requests, events, rejected, latency }]) => [
        format.count(requests), format.count(events), format.rate(rates.of(`protocol ${name}`)), format.count(rejected),
        latency === null ? "" : format.seconds(latency.median), latency === null ? "" : format.seconds(latency.p95),
      ],
      [WIDE, NUMBER, NUMBER, NUMBER, NUMBER, WIDE],
    );
    updateRows(
      this.#connections.body, summary.connections, (it) => JSON.stringify([it.group, it.connection_id, it.since]),
      (it) => it.connection_id || "(no id)",
      (it) => [it.group, format.duration(summary.time - it.since), it.user_agent], ["short", NUMBER, "text wide"],
    );
    document.getElementById("connections").hidden = summary.connections.length === 0;
  }

  #updateTiles(summary, rates) {
    const protocols = Object.values(summary.protocols);
    const slowest = Object.entries(summary.protocols)
      .filter(([, it]) => it.latency !== null)
      .sort(([, one], [, other]) => other.latency.median - one.latency.median)[0];
    const [events, requests] = [sum(protocols.map((it) => it.events)), sum(protocols.map((it) => it.requests))];
    const figures = {
      Events: [format.count(events), perSecond(rates.of("events"))],
      Requests: [format.count(requests), perSecond(rates.of("requests"))],
      Rejected: [format.count(sum(protocols.map((it) => it.rejected))), "requests"],
      "Bad events": [format.count(summary.bad_events), "by schema or message"],
      Types: [format.count(summary.type_count), ""],
      Latency: slowest
        ? [format.seconds(slowest[1].latency.median), `median, ${format.PROTOCOLS[slowest[0]]}`]
        : ["–", "from sent_time"],
      Connections: [format.count(summary.connection_count), "over WebSocket"],
      "Counting for": [format.duration(summary.time - summary.since), `acks ${summary.acks}, sink ${summary.sink}`],
    };
    for (const [name, texts] of Object.entries(figures)) {
      texts.forEach((text, index) => setText(this.#tiles[name][index], text));
    }
    for (const name of ["Rejected", "Bad events"]) this.#tiles[name][0].classList.toggle("bad", figures[name][0] !== "0");
    drawSparkline(this.#spark, rates.history("events"));
  }
}

/** Rows of a label and cells, which are of these kinds. */
function updateRows(body, items, keyOf, labelOf, cellsOf, kinds) {
  keyed(
    body, items, keyOf,
    (item) => {
      const cells = kinds.map((kind) => element("td", { class: kind }));
      return element("tr", {}, element("th", { scope: "row" }, labelOf(item)), ...cells);
    },
    (row, item) => cellsOf(item).forEach((text, index) => setText(row.children[index + 1], text)),
  );
}

function sparkline() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${SPARK_WIDTH} ${SPARK_HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS(SVG, "polyline"));
  return svg;
}

function drawSparkline(svg, values) {
  const highest = Math.max(...values, 1);
  const points = values.map((value, index) => {
    const x = SPARK_WIDTH - (values.length - 1 - index) * (SPARK_WIDTH / 60);
    return `${x.toFixed(1)},${(SPARK_HEIGHT - 1 - (value / highest) * (SPARK_HEIGHT - 2)).toFixed(1)}`;
  });
  svg.firstElementChild.setAttribute("points", points.join(" "));
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

const perSecond = (rate) => (rate === null ? "" : `${format.rate(rate)} a second`);
