import { chart, draw, Histogram, ratesOf } from "./charts.js";
import { breakable, element, keyed, setText, table } from "./dom.js";
import * as format from "./format.js";

/** One type: its counts, its rate over the last hour, and what its kept events have in common. */
export class TypeView {
  #section = document.getElementById("type-view");
  #name = element("h2");
  #facts = element("dl", { class: "facts" });
  #rate = element("p", { class: "legend events" });
  #svg = chart(["events"]);
  #fields = table("Fields of its data", [["Field"], ["Kind"], ["Examples"]]);
  #note = element("p", { class: "note" });
  #sizes = new Histogram("Size");
  #lateness = new Histogram("Lateness: sent to received");

  /** `onClose()` is called when somebody has seen enough. */
  constructor(onClose) {
    const close = element("button", { type: "button" }, "Close");
    close.addEventListener("click", onClose);
    this.#section.append(
      element("div", { class: "tools" }, this.#name, close), this.#facts, this.#rate, this.#svg,
      element("div", { class: "ends note" }, element("span", {}, "1 h ago"), element("span", {}, "now")),
      element("div", { class: "histograms" }, this.#sizes.whole, this.#lateness.whole), this.#note, this.#fields.region,
    );
  }

  get isOpen() {
    return !this.#section.hidden;
  }

  /** Shows a type's answer; null hides it. */
  update(type, now = 0, since = 0) {
    this.#section.hidden = type === null;
    if (type === null) return;
    if (this.#name.textContent === "" || this.#name.dataset.type !== type.type) {
      this.#name.dataset.type = type.type;
      this.#name.replaceChildren(...breakable(type.type || "(empty)"));
    }
    const total = Object.values(type.events).reduce((sum, count) => sum + count, 0);
    const protocols = Object.entries(type.events).map(([name, count]) => `${format.PROTOCOLS[name]} ${format.count(count)}`);
    const facts = [
      ["Events", `${format.count(total)} (${protocols.join(", ")}), ${format.rate(type.rate < 0.05 ? 0 : type.rate)} a second`],
      ["Last", `${format.ago(now - type.last_time)} ago`],
      ["Bad", `${format.share(type.bad, total)} (${format.count(type.bad)})`],
      ["Size", spread(type.size, format.bytes)],
      ["Lateness", spread(type.lateness, format.seconds)],
    ];
    keyed(
      this.#facts, facts, ([name]) => name,
      ([name]) => element("div", {}, element("dt", {}, name), element("dd")), (row, [, text]) => setText(row.children[1], text),
    );
    const rates = ratesOf(type.minutes, 60, now);
    const rate = `${format.rate(rates.at(-1) ?? 0)} a second now, up to ${format.rate(Math.max(...rates, 0))} in the last hour`;
    setText(this.#rate, rate);
    draw(this.#svg, [rates], `Its rate: ${rate}.`);
    this.#sizes.update(type.size_buckets, rangeOf(format.bytes), format.count, format.share);
    this.#lateness.update(type.late_buckets, rangeOf((ms) => (ms < 1000 ? `${ms} ms` : format.seconds(ms / 1000))), format.count, format.share);
    const isNone = type.fields.length === 0;
    setText(this.#note, `The figures of sizes and lateness and the fields are of the ${format.count(type.sampled)} events that are kept; the bars count since ${format.ago(now - since)} ago: lateness of all events, sizes of a sample.${isNone ? " None has fields: its data is too large, or no JSON and no protobuf message is known for it." : ""}`);
    this.#fields.region.hidden = isNone;
    keyed(
      this.#fields.body, type.fields, (it) => it.path,
      (it) => element("tr", {}, element("th", { scope: "row" }, ...breakable(it.path)), element("td"), element("td", { class: "text" })),
      (row, it) => {
        const kinds = Object.entries(it.kinds).map(([kind, count]) => `${kind} ${format.count(count)}`);
        setText(row.children[1], kinds.join(", "));
        setText(row.children[2], it.examples.join(", "));
      },
    );
  }
}

/** What a bar stands for: from a number to below the next. */
const rangeOf = (show) => (start, end) => (start === 0 ? `under ${show(end)}` : `${show(start)} to ${show(end)}`);

function spread(distribution, show) {
  if (distribution === null) return "not known";
  const { minimum, median, p95, maximum } = distribution;
  return `${show(minimum)} to ${show(maximum)}, median ${show(median)}, 95 % up to ${show(p95)}`;
}
