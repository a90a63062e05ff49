import { breakable } from "./dom.js";
import * as format from "./format.js";

const KINDS = { json: "JSON", protobuf: "protobuf", text: "text", hex: "bytes" };

/** Before the preview of what `raccoon-fast doctor` sent to see whether it arrives. */
const probeNote = (entry) => (entry.probe ? "Probe of raccoon-fast doctor. " : "");

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
    format.time(event.received_time), breakable(event.type), format.PROTOCOLS[event.protocol], format.bytes(event.size),
    `${probeNote(event)}${event.faults.length === 0 ? "" : `${event.faults.join(", ")}: `}${event.bad === null ? "" : `Bad at ${event.bad.path}: ${event.bad.reason} `}${event.text.slice(0, 300)}`,
  ],
  state: (event) => (event.bad !== null ? "is-bad" : event.faults.length > 0 ? "is-hit" : ""),
  facts: (event) => [
    ["Number", format.count(event.number)],
    ["Type", event.type],
    ["Received", `${format.dateTime(event.received_time)} over ${format.PROTOCOLS[event.protocol]}`],
    [
      "Sent",
      event.sent_time === null
        ? ""
        : `${format.dateTime(event.sent_time)}, ${format.seconds(event.received_time - event.sent_time)} before it was received`,
    ],
    ["Bad", event.bad === null ? "" : `at ${event.bad.path}: ${event.bad.reason}`],
    ["Faults", event.faults.join(", ")],
    ...sourceFacts(event),
    ...dataFact(event),
  ],
};

export const REJECTIONS = {
  caption: "Rejected requests, the newest first",
  none: "None.",
  columns: [["Time", "time"], ["Protocol", "wide"], ["Code", "text"], ["Reason", "preview"]],
  label: (bad) => `rejection ${bad.number}`,
  cells: (bad) => [format.time(bad.time), format.PROTOCOLS[bad.protocol], bad.code || "(not told)", `${probeNote(bad)}${bad.reason}`],
  state: () => "",
  facts: (bad) => [
    ["Reason", bad.reason],
    ["Code", bad.code || "none: the client was told nothing"],
    ["Received", `${format.dateTime(bad.time)} over ${format.PROTOCOLS[bad.protocol]}`],
    ...sourceFacts(bad),
    ...(bad.size ? dataFact(bad) : []),
  ],
};
