import { element, keyed, setText } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 600;
const HEIGHT = 60;

/** A chart of lines in one scale; `names` are their classes. */
export function chart(names) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.classList.add("chart");
  for (const name of names) {
    const line = document.createElementNS(SVG, "polyline");
    line.classList.add(name);
    svg.append(line);
  }
  return svg;
}

/** Draws lists of values, one per line; `label` says the same in words. */
export function draw(svg, lists, label) {
  svg.setAttribute("aria-label", label);
  const highest = lists.reduce((most, values) => Math.max(most, ...values), 1e-9);
  lists.forEach((values, index) => {
    const points = values.map((value, place) => {
      const x = (place / Math.max(1, values.length - 1)) * WIDTH;
      return `${x.toFixed(1)},${(HEIGHT - 1 - (value / highest) * (HEIGHT - 2)).toFixed(1)}`;
    });
    svg.children[index].setAttribute("points", points.join(" "));
  });
}

/** Counts of equal periods as rates a second; the last period is the one of `now`, which is not over yet. */
export function ratesOf(counts, period, now) {
  const elapsed = Math.max(1, now % period);
  return counts.map((count, index) => count / (index === counts.length - 1 ? elapsed : period));
}

/** A histogram: a list of bars, each with its range and count in words. */
export class Histogram {
  #list;
  #title = element("h3");
  #none = element("p", { class: "note" }, "Not known.");
  /** What to append to a page. */
  whole;

  constructor(title) {
    this.#title.textContent = title;
    this.#list = element("ol", { class: "bars", "aria-label": title });
    this.whole = element("div", { class: "histogram" }, this.#title, this.#none, this.#list);
  }

  /** `buckets` are start, end and events; `range(start, end)` says what one is. */
  update(buckets, range, count, share) {
    const highest = Math.max(...buckets.map((it) => it.events), 1);
    const total = buckets.reduce((sum, it) => sum + it.events, 0);
    this.#none.hidden = buckets.length > 0;
    keyed(
      this.#list, buckets, (it) => it.start,
      () => element("li", {}, element("span", { class: "range" }), element("span", { class: "bar" }), element("span", { class: "number" })),
      (row, it) => {
        setText(row.children[0], range(it.start, it.end));
        row.children[1].style.setProperty("--length", `${(it.events / highest) * 100}%`);
        setText(row.children[2], it.events === 0 ? "0" : `${count(it.events)} (${share(it.events, total)})`);
      },
    );
  }
}
