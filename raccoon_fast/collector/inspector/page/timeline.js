import { chart, draw, ratesOf } from "./charts.js";
import { element, setText } from "./dom.js";
import * as format from "./format.js";

// Two charts, since a request has many events: each in a scale of its own.
const CHARTS = [[["events", "Events"]], [["acks", "Acks"], ["rejected", "Rejected requests"]]];

const MIN_SHOWN_S = 300;

/** Events, and apart from them acknowledgements and rejections, per second over the last hour or since counting began. */
export class Timeline {
  #charts = CHARTS.map((lines) => ({
    lines, svg: chart(lines.map(([name]) => name)), start: element("span"),
    legend: lines.map(([name]) => element("span", { class: `legend ${name}` })),
  }));

  constructor() {
    const parent = document.createElement("div");
    parent.className = "charts";
    for (const { svg, start, legend } of this.#charts) {
      const ends = element("div", { class: "ends note" }, start, element("span", {}, "now"));
      parent.append(element("div", {}, element("div", { class: "legends" }, ...legend), svg, ends));
    }
    document.getElementById("timeline").append(parent);
  }

  update(timeline, now, since) {
    const all = timeline.events.length * timeline.period;
    const shown = Math.min(Math.max(now - since, MIN_SHOWN_S), all);
    const periods = Math.ceil(shown / timeline.period);
    for (const { lines, svg, start, legend } of this.#charts) {
      const rates = lines.map(([name]) => ratesOf(timeline[name].slice(-periods), timeline.period, now));
      const texts = lines.map(([, name], index) => `${name}: ${format.rate(rates[index].at(-1))} a second now, up to ${format.rate(Math.max(...rates[index]))}`);
      setText(start, `${format.ago(shown)} ago`);
      texts.forEach((text, index) => setText(legend[index], text));
      draw(svg, rates, `The last hour. ${texts.join(". ")}.`);
    }
  }
}
