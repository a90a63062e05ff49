import { element, keyed, setText, table } from "./dom.js";
import * as format from "./format.js";
import { jsonNodes } from "./json_text.js";

const HAS_MOUSE = matchMedia("(hover: hover)");

/**
 * A table of what came last, the newest first, each row to be opened for all there is to know of it. While one is open,
 * or pointed at, or has the focus, the table stays as it is: what somebody reads or reaches for must not move away.
 */
export class Entries {
  #table;
  #kind;
  #opened = new Set();
  #none;

  /** `kind` says what they are: caption, none, columns of [name, class], keyOf, label, cells, facts and body. */
  constructor(parent, kind) {
    this.#kind = kind;
    this.#table = table(kind.caption, [["Details", "opener"], ...kind.columns]);
    this.#none = element("p", { class: "note" }, kind.none);
    parent.append(this.#table.region, this.#none);
  }

  /** Whether it has to stay as it is. */
  get isHeld() {
    const { body } = this.#table;
    const isPointedAt = HAS_MOUSE.matches && body.matches(":hover");
    return this.#opened.size > 0 || isPointedAt || body.contains(document.activeElement);
  }

  /** Closes what is open, and lets go of the focus. */
  close() {
    for (const row of this.#opened) row.toggle(false);
    if (this.#table.body.contains(document.activeElement)) this.#table.region.focus();
  }

  /** Shows these, the oldest first, unless it is held. */
  update(entries) {
    if (this.isHeld) return;
    keyed(
      this.#table.body, entries.toReversed(), (entry) => entry.number, (entry) => this.#row(entry), () => {},
    );
    this.#table.region.classList.toggle("empty", entries.length === 0);
    this.#none.hidden = entries.length > 0;
  }

  #row(entry) {
    const { columns, cells, label } = this.#kind;
    const button = element(
      "button", { type: "button", class: "opener", "aria-expanded": "false", "aria-label": `Details of ${label(entry)}` },
    );
    const texts = cells(entry).map((text, index) => element("td", { class: columns[index][1] }, text));
    const row = element("tr", { class: "entry" }, element("td", { class: "opener" }, button), ...texts);
    let details = null;
    row.toggle = (isOpen) => {
      button.setAttribute("aria-expanded", String(isOpen));
      if (isOpen) {
        // Those columns only that there are: on a phone some are left out.
        const width = [...row.children].filter((cell) => cell.offsetParent !== null).length;
        details = element("tr", { class: "details" }, element("td", { colspan: width }, ...this.#details(entry)));
        row.after(details);
        this.#opened.add(row);
      } else {
        details?.remove();
        this.#opened.delete(row);
      }
    };
    // The whole row for the mouse; the button for everyone.
    row.addEventListener("click", () => row.toggle(!this.#opened.has(row)));
    return row;
  }

  #details(entry) {
    const facts = this.#kind.facts(entry).filter(([, value]) => value !== "" && value !== null);
    const pairs = facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
    return [element("dl", { class: "facts" }, ...pairs), ...this.#data(entry)];
  }

  #data(entry) {
    if (!entry.size) return [];
    const isJson = entry.format === "json" || entry.format === "protobuf";
    const pre = element("pre", { tabindex: "0", "aria-label": "Data" }, ...(isJson ? jsonNodes(entry.text) : [entry.text]));
    if (!navigator.clipboard) return [pre]; // not over plain HTTP from another machine
    const copy = element("button", { type: "button" }, "Copy");
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(pre.textContent);
      setText(copy, "Copied");
    });
    return [element("div", { class: "data" }, pre, copy)];
  }
}

const KINDS = { json: "JSON", protobuf: "protobuf", text: "text", hex: "bytes" };

/** The facts that events and rejections share. */
function sourceFacts(entry) {
  return [
    ["Client", entry.connection_id], ["Group", entry.group], ["User agent", entry.user_agent], ["Guid", entry.req_guid],
  ];
}

function dataFact(entry) {
  return [
    ["Data", `${entry.format === "protobuf" ? entry.message : KINDS[entry.format]}, ${format.bytes(entry.size)}`],
    ["Note", entry.problem],
  ];
}

export const EVENTS = {
  caption: "Events, the newest first",
  none: "None yet. Send some to one of the addresses above.",
  columns: [["Time", "time"], ["Type", "text"], ["Protocol", "wide"], ["Size", "number wide"], ["Data", "preview"]],
  label: (event) => `event ${event.number}, ${event.type}`,
  cells: (event) => [
    format.time(event.received_time), event.type, format.PROTOCOLS[event.protocol], format.bytes(event.size), event.text.slice(0, 300),
  ],
  facts: (event) => [
    ["Number", format.count(event.number)],
    ["Type", event.type],
    ["Received", `${format.dateTime(event.received_time)} over ${format.PROTOCOLS[event.protocol]}`],
    [
      "Sent",
      event.sent_time === null
        ? ""
        : `${format.dateTime(event.sent_time)}, ${format.seconds(event.received_time - event.sent_time)} before`,
    ],
    ...sourceFacts(event),
    ...dataFact(event),
  ],
};

export const REJECTIONS = {
  caption: "Rejected requests, the newest first",
  none: "None.",
  columns: [["Time", "time"], ["Protocol", "wide"], ["Code", "text"], ["Reason", "preview"]],
  label: (bad) => `rejection ${bad.number}`,
  cells: (bad) => [format.time(bad.time), format.PROTOCOLS[bad.protocol], bad.code || "(not told)", bad.reason],
  facts: (bad) => [
    ["Reason", bad.reason],
    ["Code", bad.code || "none: the client was told nothing"],
    ["Received", `${format.dateTime(bad.time)} over ${format.PROTOCOLS[bad.protocol]}`],
    ...sourceFacts(bad),
    ...(bad.size ? dataFact(bad) : []),
  ],
};
