import { described } from "./faults.js";
import { element, keyed, setText, table } from "./dom.js";
import * as format from "./format.js";

const COLUMNS = [
  ["Client", "text"], ["Protocol", "wide"], ["Times", "number"], ["Requests", "number wide"], ["Events", "number"], ["Last", "number"],
];

/** Beside the events: which faults are on, what each does, and to whom it happened. */
export class FaultHits {
  #section = document.getElementById("fault-hits");
  #table = table("Faults and whom they happened to", COLUMNS);

  constructor() {
    this.#section.append(this.#table.region);
  }

  update({ faults: on, fault_hits: hits, fault_texts: texts, time }) {
    const names = [...new Set([...on, ...hits.map((it) => it.fault)])];
    this.#section.hidden = names.length === 0;
    const rows = names.flatMap((fault) => {
      const own = hits.filter((it) => it.fault === fault);
      return [{ fault, isIdle: own.length === 0 }, ...own];
    });
    keyed(
      this.#table.body, rows, (it) => JSON.stringify([it.fault, it.protocol, it.group, it.connection_id]),
      (it) => (it.times === undefined ? head(it.fault, texts[it.fault]) : element("tr", {}, ...COLUMNS.map(([, kind]) => element("td", { class: kind })))),
      (row, it) => {
        if (it.times === undefined) {
          row.classList.toggle("on", on.includes(it.fault));
          const states = [on.includes(it.fault) ? "is on" : "is off", it.isIdle ? "happened to nobody yet" : ""];
          setText(row.querySelector(".fault-state"), states.filter(Boolean).join(", "));
          return;
        }
        const cells = [
          it.connection_id || "(no id)", format.PROTOCOLS[it.protocol], format.count(it.times), format.count(it.requests),
          format.count(it.events), format.ago(time - it.last_time),
        ];
        cells.forEach((text, index) => setText(row.children[index], text));
      },
    );
  }
}

const head = (fault, text) => element(
  "tr", { class: "fault" },
  element(
    "th", { scope: "rowgroup", colspan: COLUMNS.length }, element("code", {}, fault), " ", element("span", { class: "fault-state" }),
    element("span", { class: "note" }, ...described(text ?? "")),
  ),
);
