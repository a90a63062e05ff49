import { chart, draw, ratesOf } from "./charts.js";
import { breakable, element, keyed, setText, table } from "./dom.js";
import * as format from "./format.js";

/** One type: its counts, its rate over the last hour, and what its kept events have in common. */
export class TypeView {
  #section = document.getElementById("type-view");
  #name = element("h2");
  #facts = element("dl", { class: "facts" });
  #svg = chart(["events"]);
  #fields = table("Fields of its data", [["Field"], ["Kind"], ["Examples"]]);
  #note = element("p", { class: "note" });

  /** `onClose()` is called when somebody has seen enough. */
  constructor(onClose) {
    const close = element("button", { type: "button" }, "Close");
    close.addEventListener("click", onClose);
    this.#section.append(
      element("div", { class: "tools" }, this.#name, close), this.#facts, this.#svg, this.#note, this.#fields.region,
    );
  }

  get isOpen() {
    return !this.#section.hidden;
  }

  /** Shows a type's answer; null hides it. */
  update(type, now = 0) {
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
    draw(this.#svg, [rates], `Its rate in the last hour: up to ${format.rate(Math.max(...rates, 0))} a second.`);
    const isNone = type.fields.length === 0;
    setText(this.#note, `Sizes, lateness and fields are of the ${format.count(type.sampled)} events that are kept.${isNone ? " None has fields: its data is no JSON, and no protobuf message is known for it." : ""}`);
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

function spread(distribution, show) {
  if (distribution === null) return "not known";
  const { minimum, median, p95, maximum } = distribution;
  return `${show(minimum)} to ${show(maximum)}, median ${show(median)}, 95 % up to ${show(p95)}`;
}
