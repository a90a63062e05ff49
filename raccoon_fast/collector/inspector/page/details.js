import { asAssertion, asCurl, asJson } from "./copies.js";
import { element, setText, visibleLines } from "./dom.js";
import * as format from "./format.js";
import { jsonNodes } from "./json_text.js";

const BYTES_IN_A_LINE = 16;
const LISTED_BYTES = 16 * 1024; // so much data of an event is in the list
const FIRST_CHARACTERS = 2000;

/**
 * All there is to know of one entry. `more` asks for what the list has not, null where that is nothing: `whole(entry)` for
 * headers and raw bytes, `part(entry, offset)` for a part of data that is too large for the list.
 */
export class Details {
  #facts;
  #more;

  constructor(facts, more) {
    this.#facts = facts;
    this.#more = more;
  }

  /** The elements that show it. */
  of(entry) {
    const facts = this.#facts(entry).filter(([, value]) => value !== "" && value !== null);
    const more = element("div", { class: "more" });
    if (this.#more !== null) this.#fill(more, entry);
    return [element("dl", { class: "facts" }, ...pairs(facts)), ...dataOf(entry, this.#more), more];
  }

  async #fill(target, entry) {
    try {
      const event = await this.#more.whole(entry);
      const headers = Object.entries(event.headers);
      const raw = element("pre", { tabindex: "0", "aria-label": "Raw bytes", class: "raw" }, hexLines(event.base64));
      const isWhole = atob(event.base64).length === event.size;
      const texts = [["Copy as JSON", () => asJson(event)]];
      if (isWhole) {
        texts.push(["Copy as curl", () => asCurl(event, location.origin)], ["Copy as pytest assertion", () => asAssertion(event)]);
      }
      target.append(
        copies(texts),
        folded(`Headers (${headers.length})`, element("dl", { class: "headers" }, ...pairs(headers))),
        folded("Raw bytes", raw),
      );
    } catch (problem) {
      target.append(element("p", { class: "note" }, `No headers and raw bytes: ${problem.message}`));
    }
  }
}

const pairs = (facts) => facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));

const folded = (name, content) => element("details", {}, element("summary", {}, name), content);

function dataOf(entry, more) {
  if (!entry.size) return [];
  if (entry.size > LISTED_BYTES && more !== null) return [largeData(entry, more)];
  const isJson = entry.format === "json" || entry.format === "protobuf";
  const pre = element("pre", { tabindex: "0", "aria-label": "Data" }, ...(isJson ? jsonNodes(entry.text) : [entry.text]));
  // What is copied is what came, not how hidden characters are shown.
  const copied = isJson ? jsonNodes(entry.text, (text) => text).join("") : entry.text;
  return [element("div", { class: "data" }, pre, copies([["Copy", () => copied]]))];
}

/** The beginning of data that is too large for the list, and a button for the rest, part by part. */
function largeData(entry, more) {
  const pre = element("pre", { tabindex: "0", "aria-label": "Data" }, entry.text.slice(0, FIRST_CHARACTERS));
  const button = element("button", { type: "button" }, `Show all ${format.bytes(entry.size)}`);
  const problem = element("p", { class: "note", role: "status" });
  let text = "";
  let next = 0;
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const part = await more.part(entry, next);
      if (next === 0) pre.replaceChildren();
      text += part.text;
      next = part.next;
      pre.append(visibleLines(part.text));
      button.hidden = next === null;
      const left = part.characters - text.length;
      setText(button, `Show ${format.count(Math.min(left, part.text.length))} more characters of ${format.count(left)}`);
      setText(problem, "");
    } catch (error) {
      setText(problem, `Not shown: ${error.message}`);
    }
    button.disabled = false;
  });
  const whole = copies([["Copy what is shown", () => text || entry.text.slice(0, FIRST_CHARACTERS)]]);
  return element("div", { class: "data" }, pre, problem, element("div", { class: "tools" }, button, whole));
}

/** Buttons that copy a text; none where a page may not, which is over plain HTTP from another machine. */
function copies(texts) {
  if (!navigator.clipboard) return "";
  const buttons = texts.map(([name, text]) => {
    const button = element("button", { type: "button" }, name);
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text());
        setText(button, "Copied");
      } catch (problem) {
        setText(button, `Not copied: ${problem.message}`);
      }
    });
    return button;
  });
  return element("div", { class: "tools copies" }, ...buttons);
}

function hexLines(base64) {
  const bytes = [...atob(base64)].map((it) => it.charCodeAt(0));
  const lines = [];
  for (let start = 0; start < bytes.length; start += BYTES_IN_A_LINE) {
    const part = bytes.slice(start, start + BYTES_IN_A_LINE);
    const hex = part.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const text = part.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${start.toString(16).padStart(4, "0")}  ${hex.padEnd(BYTES_IN_A_LINE * 3 - 1)}  ${text}`);
  }
  return lines.join("\n");
}
