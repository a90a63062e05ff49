import { Details } from "./details.js";
import { element, keyed, setText, table } from "./dom.js";

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
  #details;
  #isLetGo = false;

  /**
   * `kind` says what they are: caption, none, columns of [name, class], label, cells, facts and state, a class. `more` asks for
   * the rest of an entry that is opened, see `Details`; without it there is no more.
   */
  constructor(parent, kind, more = null) {
    this.#kind = kind;
    this.#details = new Details(kind.facts, more);
    this.#table = table(kind.caption, [["Details", "opener"], ...kind.columns]);
    this.#none = element("p", { class: "note" }, kind.none);
    parent.append(this.#table.region, this.#none);
    this.#table.body.addEventListener("keydown", (event) => this.#move(event));
  }

  /** Whether it has to stay as it is. */
  get isHeld() {
    if (this.#isLetGo) return false;
    const { body } = this.#table;
    const isPointedAt = HAS_MOUSE.matches && body.matches(":hover");
    return this.#opened.size > 0 || isPointedAt || body.contains(document.activeElement);
  }

  /** Closes what is open, and lets go of the focus: the next update is shown. */
  close() {
    this.#isLetGo = true;
    for (const row of this.#opened) row.toggle(false);
    if (this.#table.body.contains(document.activeElement)) this.#table.region.focus();
  }

  /** Closes what has the focus, or else what was opened last, and puts the focus on its button; whether there was one. */
  closeOne() {
    const focused = document.activeElement.closest("tr.details, tr.entry");
    const rows = [...this.#opened];
    const row = rows.find((it) => it === focused || it.nextElementSibling === focused) ?? rows.at(-1);
    if (row === undefined) return false;
    row.toggle(false);
    row.querySelector("button.opener").focus();
    return true;
  }

  /** Shows these, the oldest first, unless it is held; `none` says why there are none. */
  update(entries, none = this.#kind.none) {
    if (this.isHeld) return;
    this.#isLetGo = false;
    keyed(
      this.#table.body, entries.toReversed(), (entry) => entry.number, (entry) => this.#row(entry), () => {},
    );
    this.#table.region.classList.toggle("empty", entries.length === 0);
    this.#none.hidden = entries.length > 0;
    setText(this.#none, none);
    this.#stopAt(this.#openers.find((it) => it.tabIndex === 0) ?? this.#openers[0]);
  }

  get #openers() {
    return [...this.#table.body.querySelectorAll("button.opener")];
  }

  // One stop for the tab key in the whole table; the arrow keys move it.

  #stopAt(opener) {
    for (const it of this.#openers) it.tabIndex = it === opener ? 0 : -1;
  }

  #move(event) {
    const openers = this.#openers;
    const index = openers.indexOf(event.target);
    const last = openers.length - 1;
    const next = { ArrowDown: Math.min(index + 1, last), ArrowUp: Math.max(index - 1, 0), Home: 0, End: last }[event.key];
    if (index === -1 || next === undefined) return;
    event.preventDefault();
    this.#stopAt(openers[next]);
    openers[next].focus();
  }

  #row(entry) {
    const { columns, cells, label } = this.#kind;
    const button = element(
      "button", { type: "button", class: "opener", "aria-expanded": "false", "aria-label": `Details of ${label(entry)}`, tabindex: "-1" },
    );
    const texts = cells(entry).map((cell, index) => element("td", { class: columns[index][1] }, ...[cell].flat()));
    const row = element("tr", { class: `entry ${this.#kind.state(entry)}` }, element("td", { class: "opener" }, button), ...texts);
    let details = null;
    row.toggle = (isOpen) => {
      button.setAttribute("aria-expanded", String(isOpen));
      if (isOpen) {
        // Those columns only that there are: on a phone some are left out.
        const width = [...row.children].filter((cell) => cell.offsetParent !== null).length;
        details = element("tr", { class: "details" }, element("td", { colspan: width }, ...this.#details.of(entry)));
        row.after(details);
        this.#opened.add(row);
        this.#stopAt(button);
      } else {
        details?.remove();
        this.#opened.delete(row);
      }
    };
    // The whole row for the mouse; the button for everyone.
    row.addEventListener("click", () => row.toggle(!this.#opened.has(row)));
    return row;
  }
}
