import { chart, draw, ratesOf } from "./charts.js";
import { element, setText } from "./dom.js";
import * as format from "./format.js";

const LINES = [["events", "Events"], ["requests", "Accepted requests"], ["rejected", "Rejected"]];

const MIN_SHOWN_S = 300;

/** Events, accepted requests and rejections per second over the last hour, or since counting began, each line in a scale of its own. */
export class Timeline {
  #svg = chart(LINES.map(([name]) => name));
  #start = element("span");
  #legend = LINES.map(([name]) => element("span", { class: `legend ${name}` }));

  constructor() {
    const ends = element("div", { class: "ends note" }, this.#start, ...this.#legend, element("span", {}, "now"));
    document.getElementById("timeline").append(this.#svg, ends);
  }

  update(timeline, now, since) {
    const all = timeline.events.length * timeline.period;
    const shown = Math.min(Math.max(now - since, MIN_SHOWN_S), all);
    const periods = Math.ceil(shown / timeline.period);
    const rates = LINES.map(([name]) => ratesOf(timeline[name].slice(-periods), timeline.period, now));
    setText(this.#start, `${format.ago(shown)} ago`);
    const texts = LINES.map(([, name], index) => `${name}: up to ${format.rate(Math.max(...rates[index]))} a second`);
    texts.forEach((text, index) => setText(this.#legend[index], text));
    draw(this.#svg, rates, `The last hour. ${texts.join(". ")}.`);
  }
}
