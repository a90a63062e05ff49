/** What the page shows, in the URL's query: it is kept over a reload, and the URL can be given to others. */
export const FILTERS = ["type", "search", "guid", "client", "protocol", "quality"];

const ALLOWED = { protocol: ["rest", "websocket", "grpc"], quality: ["good", "bad"] };

const params = () => new URLSearchParams(location.search);

/** A value; null where there is none, or none that is allowed. An event's type can be "". */
export function get(name) {
  const value = params().get(name);
  return value !== null && (ALLOWED[name]?.includes(value) ?? true) ? value : null;
}

/** Sets values; null removes one. `isStep`: the browser's back button undoes it. */
export function set(changes, isStep = false) {
  const changed = params();
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) changed.delete(name);
    else changed.set(name, value);
  }
  const query = changed.toString();
  if (query === params().toString()) return;
  const url = query === "" ? location.pathname : `?${query}`;
  if (isStep) history.pushState(null, "", url);
  else history.replaceState(null, "", url);
}

/** The filters that are set, as [name, value]. */
export const filters = () => FILTERS.map((name) => [name, get(name)]).filter(([, value]) => value !== null);
