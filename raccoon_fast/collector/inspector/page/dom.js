// What comes from outside gets into the page as text only: nothing here takes HTML.

// Controls (C0, DEL, C1), and what is invisible or turns the direction of the text around it.
const HIDDEN = /[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** Text with such characters shown as ⟨U+202E⟩. */
export function visible(text) {
  return text.replace(HIDDEN, (it) => `⟨U+${it.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

/** The same of text in lines: line feeds and tabs stay. */
export function visibleLines(text) {
  return text.replace(HIDDEN, (it) => (it === "\n" || it === "\t" ? it : visible(it)));
}

/**
 * Makes an element: attributes (true is an empty one; false, null and undefined leave it out), then children. Characters
 * that hide are made visible.
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  const show = name === "pre" ? visibleLines : visible;
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, visible(String(value)));
  }
  made.append(...children.map((child) => (typeof child === "string" ? show(child) : child)));
  return made;
}

/** A name in parts between which a line may break: behind . _ - / and :, and not inside a word. */
export function breakable(name) {
  return name.split(/(?<=[._\-/:])/).flatMap((part, index) => (index === 0 ? [part] : [element("wbr"), part]));
}

/** Sets an element's text if it is another one: a screen reader is told of nothing new then, and a selection stays. */
export function setText(target, text) {
  const shown = visible(text);
  if (target.textContent !== shown) target.textContent = shown;
}

/**
 * Makes an empty table in a region that scrolls by itself where it is too narrow; `columns` are [name, class], the
 * caption is for those who do not see what is around.
 */
export function table(caption, columns) {
  const head = element("tr", {}, ...columns.map(([name, kind]) => element("th", { scope: "col", class: kind }, name)));
  const body = element("tbody");
  const whole = element("table", {}, element("caption", {}, caption), element("thead", {}, head), body);
  const region = element("div", { class: "scrolls", role: "region", "aria-label": caption, tabindex: "0" }, whole);
  return { region, body };
}

/**
 * Makes `parent` have one child for each item, in their order. Those of the same key stay the same elements: focus and
 * selection stay too.
 */
export function keyed(parent, items, keyOf, make, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let before = null;
  for (const item of items) {
    const key = String(keyOf(item));
    let child = old.get(key);
    if (child === undefined) {
      child = make(item);
      child.dataset.key = key;
    }
    old.delete(key);
    update(child, item);
    const next = before === null ? parent.firstElementChild : before.nextElementSibling;
    if (next !== child) parent.insertBefore(child, next);
    before = child;
  }
  for (const gone of old.values()) gone.remove();
}
