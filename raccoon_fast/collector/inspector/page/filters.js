import { element } from "./dom.js";
import * as format from "./format.js";
import * as state from "./state.js";

const DELAY_MS = 200;
const SUGGESTIONS = 20;
const NAMES = { type: "type", search: "data", guid: "guid", client: "client", protocol: "protocol", quality: "good or bad" };

/** The filters above the events. `onChange()` is called when one is another one; `ask(path)` asks the collector. */
export class Filters {
  #inputs = new Map();
  #suggestions = document.getElementById("type-names");
  #clear = document.getElementById("clear");
  #onChange;
  #ask;
  #timer = null;

  constructor(ask, onChange) {
    this.#ask = ask;
    this.#onChange = onChange;
    const form = document.getElementById("filters");
    for (const name of state.FILTERS) {
      const input = form.elements.namedItem(name);
      this.#inputs.set(name, input);
      input.addEventListener("change", () => this.#take(name, true));
      if (input.tagName !== "INPUT") continue;
      input.addEventListener("input", () => this.#later(name));
      input.addEventListener("search", () => this.#take(name, true));
    }
    this.#inputs.get("type").addEventListener("focus", () => this.#suggest());
    form.addEventListener("submit", (event) => event.preventDefault());
    this.#clear.addEventListener("click", () => {
      this.clear();
      this.#inputs.get("search").focus();
    });
    this.show();
  }

  /** Takes all filters away. */
  clear() {
    state.set(Object.fromEntries(state.FILTERS.map((name) => [name, null])), true);
    this.show();
    this.#onChange();
  }

  /** Shows what the URL says. */
  show() {
    for (const [name, input] of this.#inputs) {
      const value = state.get(name);
      if (input !== document.activeElement || input.value !== value) input.value = value ?? "";
    }
    this.#inputs.get("type").placeholder = state.get("type") === "" ? "(empty)" : "all";
    this.#clear.hidden = state.filters().length === 0;
  }

  #later(name) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(async () => {
      if (name !== "type") return this.#take(name, false);
      await this.#suggest();
      const { value } = this.#inputs.get("type");
      // Half a name is no type yet.
      const isWhole = [...this.#suggestions.options].some((option) => option.value === value);
      if (value === "" || isWhole) this.#take("type", false);
    }, DELAY_MS);
  }

  #take(name, isStep) {
    clearTimeout(this.#timer);
    const { value } = this.#inputs.get(name);
    const before = state.get(name);
    if (value === (before ?? "")) return;
    state.set({ [name]: value === "" ? null : value }, isStep);
    this.show();
    this.#onChange();
  }

  async #suggest() {
    const search = encodeURIComponent(this.#inputs.get("type").value);
    try {
      const { types } = await this.#ask(`types?limit=${SUGGESTIONS}&search=${search}`);
      this.#suggestions.replaceChildren(...types.map(({ type }) => {
        const option = element("option");
        option.value = type;
        return option;
      }));
    } catch {
      // Then there are no suggestions; that the collector is not reachable is said elsewhere.
    }
  }
}

/** Why no event is shown: which filter hides how many. */
export function whyNone({ searched, hidden }) {
  if (searched === 0) return "None yet. Send some to one of the addresses above.";
  const parts = Object.entries(hidden).filter(([, count]) => count > 0).map(([name, count]) => {
    const value = name === "protocol" ? format.PROTOCOLS[state.get(name)] : state.get(name);
    return `${format.count(count)} by ${NAMES[name]} “${value}”`;
  });
  return `No event passes the filters. Of ${format.count(searched)} that are kept, hidden: ${parts.join(", ")}.`;
}
