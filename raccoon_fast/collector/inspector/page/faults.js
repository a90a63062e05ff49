import { element, keyed, setText } from "./dom.js";
import * as format from "./format.js";

const TIMES = "times";

/** The faults as switches. `order(body)` sends what is to be done and returns the state of all of them. */
export class Faults {
  #order;
  #list = document.getElementById("fault-list");

  constructor(order) {
    this.#order = order;
    document.getElementById("faults-off").addEventListener("click", () => this.#send({ on: false }));
  }

  update(faults) {
    keyed(this.#list, faults, (fault) => fault.fault, (fault) => this.#row(fault), updateRow);
  }

  /** Says which are on, also while the list is closed. */
  showOn(names) {
    const text = names.length ? `on: ${names.join(", ")}` : "none on";
    const target = document.getElementById("faults-on");
    setText(target, text);
    target.classList.toggle("bad", names.length > 0);
  }

  #row(fault) {
    const id = `fault-${fault.fault}`;
    const inputs = Object.entries(fault.arguments).map(([name, value]) => argumentInput(id, name, value));
    if (fault.has_times) inputs.push(argumentInput(id, TIMES, null, "until off"));
    const error = element("p", { class: "bad", role: "alert" });
    const send = async (on) => {
      setText(error, "");
      try {
        await this.#send({ fault: fault.fault, on, ...(on ? read(inputs) : {}) });
        return true;
      } catch (problem) {
        setText(error, problem.message);
        return false;
      }
    };
    const name = element("code", { id }, fault.fault);
    let control;
    if (fault.fault === "close_connections") {
      control = element("button", { type: "button", "aria-describedby": `${id}-text` }, name);
      control.addEventListener("click", () => send(true));
    } else {
      const box = element("input", { type: "checkbox", role: "switch", "aria-describedby": `${id}-text` });
      box.addEventListener("change", async () => {
        if (!(await send(box.checked))) box.checked = !box.checked;
      });
      control = element("label", {}, box, name);
    }
    return element(
      "li", {}, control, element("span", { class: "happened" }), element("p", { id: `${id}-text` }, ...described(fault.description)),
      element("div", { class: "arguments" }, ...inputs.map((input) => input.label)), error,
    );
  }

  async #send(body) {
    this.update(await this.#order(body));
  }
}

function argumentInput(id, name, value, placeholder = "") {
  const isNumber = typeof value === "number" || name === TIMES;
  const input = element("input", {
    type: isNumber ? "number" : "text", step: name === TIMES ? "1" : "any", min: isNumber ? "0" : null, placeholder,
    value: value ?? "", id: `${id}-${name}`,
  });
  return { name, input, isNumber, label: element("label", {}, name.replaceAll("_", " "), input) };
}

function read(inputs) {
  const given = inputs.filter(({ input }) => input.value !== "");
  return Object.fromEntries(given.map(({ name, input, isNumber }) => [name, isNumber ? Number(input.value) : input.value]));
}

/** A text whose parts in backticks are code. */
export function described(text) {
  return text.split("`").map((part, index) => (index % 2 ? element("code", {}, part) : part));
}

function updateRow(row, fault) {
  const box = row.querySelector("[role=switch]");
  if (box !== null) box.checked = fault.on;
  const left = fault.times_left === null ? "" : `, ${format.count(fault.times_left)} to come`;
  setText(row.querySelector(".happened"), fault.happened || left ? `happened ${format.count(fault.happened)} times${left}` : "");
  row.classList.toggle("on", fault.on);
}
