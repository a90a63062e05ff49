import { breakable, element, keyed, setText, table } from "./dom.js";
import * as format from "./format.js";
import * as state from "./state.js";

const PAGE = 20;
const DELAY_MS = 200;
const SPLIT = "number split"; // left out where it is narrow

// Name, class, the order it stands for.
const COLUMNS = [
  ["Type", "", "name"], ...Object.values(format.PROTOCOLS).map((name) => [name, SPLIT]), ["All", "number", "events"],
  ["per second", "number", "rate"], ["Bad", "number", "bad"], ["Last", "number wide", "last"],
];

/** The types: sorted by a click on a column's head, searched, in pages. `onChange()` asks for them anew. */
export class Types {
  #table = table("Events by type", COLUMNS.map(([name, kind]) => [name, kind]));
  #search = document.getElementById("types-search");
  #none = element("p", { class: "note", hidden: true });
  #range = element("span", { class: "note" });
  #onChange;
  #showType;
  #pages = {};
  #heads = [];
  #timer = null;

  constructor(onChange, showType) {
    this.#onChange = onChange;
    this.#showType = showType;
    [...this.#table.region.querySelectorAll("thead th")].forEach((head, index) => this.#makeSortable(head, COLUMNS[index]));
    for (const [name, step] of [["Previous", -1], ["Next", 1]]) {
      this.#pages[name] = element("button", { type: "button", "aria-label": `${name} types` }, name);
      this.#pages[name].addEventListener("click", () => this.#go({ page: String(this.#page + step) }));
    }
    const pager = element("div", { class: "tools pager" }, this.#range, this.#pages.Previous, this.#pages.Next);
    document.getElementById("types").append(this.#table.region, this.#none, pager);
    this.#search.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#go({ types: this.#search.value || null, page: null }, false), DELAY_MS);
    });
    this.show();
  }

  /** Shows what the URL says. */
  show() {
    if (this.#search !== document.activeElement) this.#search.value = state.get("types") ?? "";
  }

  /** What to ask the collector for. */
  get path() {
    const query = { search: state.get("types") ?? "", sort: this.#sort, offset: (this.#page - 1) * PAGE, limit: PAGE };
    return `types?${new URLSearchParams(query)}`;
  }

  update({ types, matched, type_count: all, uncounted }, now) {
    const last = Math.max(1, Math.ceil(matched / PAGE));
    if (this.#page > last) {
      state.set({ page: String(last) });
      this.#onChange();
      return;
    }
    const rows = uncounted !== null && this.#page === last ? [...types, uncounted] : types;
    keyed(this.#table.body, rows, (it) => JSON.stringify(it.type), (it) => this.#row(it), (row, it) => {
      const total = Object.values(it.events).reduce((sum, count) => sum + count, 0);
      const texts = [
        ...Object.keys(format.PROTOCOLS).map((name) => format.count(it.events[name])), format.count(total),
        format.rate(it.rate < 0.05 ? 0 : it.rate), format.share(it.bad, total), format.ago(now - it.last_time),
      ];
      texts.forEach((text, index) => setText(row.children[index + 1], text));
      row.children[COLUMNS.length - 2].classList.toggle("bad", it.bad > 0);
      row.classList.toggle("chosen", it.type === state.get("type"));
    });
    const first = (this.#page - 1) * PAGE;
    setText(this.#range, `${format.count(first + 1)} to ${format.count(first + types.length)} of ${format.count(matched)}`);
    this.#range.parentElement.hidden = matched <= PAGE;
    this.#pages.Previous.disabled = this.#page === 1;
    this.#pages.Next.disabled = this.#page === last;
    this.#none.hidden = rows.length > 0;
    this.#table.region.classList.toggle("empty", rows.length === 0);
    if (rows.length === 0) setText(this.#none, all === 0 ? "None yet." : `None of ${format.count(all)} types has “${state.get("types")}” in its name.`);
    for (const [head, order] of this.#heads) {
      if (order === this.#sort) head.setAttribute("aria-sort", order === "name" ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
  }

  get #page() {
    const page = Number(state.get("page") ?? "1");
    return Number.isSafeInteger(page) && page > 0 && page < 1e6 ? page : 1;
  }

  get #sort() {
    const sort = state.get("sort");
    return COLUMNS.some(([, , order]) => order !== undefined && order === sort) ? sort : "events";
  }

  #go(changes, isStep = true) {
    state.set(changes, isStep);
    this.#onChange();
  }

  #makeSortable(head, [name, , order]) {
    if (order === undefined) return;
    const button = element("button", { type: "button", class: "link", title: "Sort by this" }, name);
    button.addEventListener("click", () => this.#go({ sort: order === "events" ? null : order, page: null }));
    head.replaceChildren(button);
    this.#heads.push([head, order]);
  }

  #row({ type }) {
    const cells = COLUMNS.slice(1).map(([, kind]) => element("td", { class: kind }));
    return element("tr", {}, element("th", { scope: "row" }, this.#label(type)), ...cells);
  }

  #label(type) {
    if (type === null) return "(types beyond the first 20,000)";
    const button = element("button", { type: "button", class: "link", title: "Show its events" }, ...breakable(type || "(empty)"));
    button.addEventListener("click", () => this.#showType(type));
    return button;
  }
}
