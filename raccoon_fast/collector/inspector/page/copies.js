// What is copied is pasted into shells and programs: all of it is quoted, and ASCII where it came from outside.

const escaped = (text) => text.replace(/[^\x20-\x7e]/g, (it) => `\\u${it.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** JSON in ASCII. */
const json = (value, indent) => JSON.stringify(value, null, indent).split("\n").map(escaped).join("\n");

const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A JSON string as Python reads it: there a character beyond U+FFFF is not two. */
function python(text) {
  return json(text).replace(/\\\\|\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})/g, (all, high, low) => {
    if (high === undefined) return all;
    const point = (parseInt(high, 16) - 0xd800) * 0x400 + (parseInt(low, 16) - 0xdc00) + 0x10000;
    return `\\U${point.toString(16).padStart(8, "0")}`;
  });
}

/** An event with all there is to know of it; its data as it came, numbers not rounded. */
export function asJson({ data, ...rest }) {
  if (rest.format !== "json" && rest.format !== "protobuf") return json({ ...rest, data }, 2);
  const text = rest.text.replace(/[^\x20-\x7e\n\r\t]+/g, escaped); // what is no space is in a string
  return json(rest, 2).replace(/\n}$/, () => `,\n  "data": ${text}\n}`);
}

/** A command that sends the event again; its request has a guid of its own. */
export function asCurl(event, origin) {
  const body = { req_guid: crypto.randomUUID(), events: [{ event_bytes: event.base64, type: event.type }] };
  const id = event.connection_id.replace(/[^\x20-\x7e]/g, "");
  const lines = [
    `curl ${shell(`${origin}/api/v1/events`)}`, "-H 'Content-Type: application/json'",
    ...(id === "" ? [] : [`-H ${shell(`X-User-ID: ${id}`)}`]), `--data-raw ${shell(json(body))}`,
  ];
  return lines.join(" \\\n  ");
}

/** A line of a test that expects the event; `raccoon_collector` is the fixture. */
export function asAssertion(event) {
  const type = python(event.type);
  // Python's JSON readers differ in numbers that are this long.
  const isComparable = event.format === "json" && event.text.trimStart().startsWith("{") && !/\d{18}/.test(event.text);
  const where = isComparable
    ? `json.loads(${python(event.text)})`
    : `lambda event: event.data == base64.b64decode("${event.base64}")`;
  return `raccoon_collector.wait_for(1, type=${type}, where=${where})`;
}
