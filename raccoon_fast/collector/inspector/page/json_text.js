import { element } from "./dom.js";

// From token to token, and not by JSON.parse: that would round long numbers and drop the first of two members of a name.
const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

const coloured = (token, kind) => element("span", { class: kind }, token);

/** JSON text, indented and coloured, as a list of nodes. `show(token, kind)` makes the node of a name or value. */
export function jsonNodes(text, show = coloured) {
  const tokens = text.match(TOKEN) ?? [];
  const nodes = [];
  let depth = 0;
  const line = () => nodes.push(`\n${"  ".repeat(depth)}`);
  tokens.forEach((token, index) => {
    const [last, next] = [tokens[index - 1], tokens[index + 1]];
    if (token === "{" || token === "[") {
      nodes.push(token);
      depth += 1;
      if (next !== "}" && next !== "]") line();
    } else if (token === "}" || token === "]") {
      depth -= 1;
      if (last !== "{" && last !== "[") line();
      nodes.push(token);
    } else if (token === ",") {
      nodes.push(token);
      line();
    } else if (token === ":") {
      nodes.push(": ");
    } else {
      nodes.push(show(token, kindOf(token, next)));
    }
  });
  return nodes;
}

function kindOf(token, next) {
  if (token.startsWith('"')) return next === ":" ? "json-name" : "json-text";
  return /^[-\d]/.test(token) ? "json-number" : "json-word";
}
