import { chart, draw, ratesOf } from "./charts.js";
import { element, setText } from "./dom.js";
import * as format from "./format.js";

const LINES = [["events", "Events"], ["requests", "Accepted requests"], ["rejected", "Rejected"]];

/** Events, accepted requests and rejections per second over the last hour, each line in a scale of its own. */
export class Timeline {
  #svg = chart(LINES.map(([name]) => name));
  #legend = LINES.map(([name]) => element("span", { class: `legend ${name}` }));

  constructor() {
    const ends = element("div", { class: "ends note" }, element("span", {}, "1 hour ago"), ...this.#legend, element("span", {}, "now"));
    document.getElementById("timeline").append(this.#svg, ends);
  }

  update(timeline, now) {
    const rates = LINES.map(([name]) => ratesOf(timeline[name], timeline.period, now));
    const texts = LINES.map(([, name], index) => `${name}: up to ${format.rate(Math.max(...rates[index]))} a second`);
    texts.forEach((text, index) => setText(this.#legend[index], text));
    draw(this.#svg, rates, `The last hour. ${texts.join(". ")}.`);
  }
}
