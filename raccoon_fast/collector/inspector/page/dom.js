// What comes from outside gets into the page as text only: nothing here takes HTML.

/** Makes an element: attributes (true is an empty one; false, null and undefined leave it out), then children. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Sets an element's text if it is another one: a screen reader is told of nothing new then, and a selection stays. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
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
