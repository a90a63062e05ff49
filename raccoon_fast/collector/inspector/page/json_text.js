import { element } from "./dom.js";

// From token to token, and not by JSON.parse: that would round long numbers and drop the first of two members of a name.
const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

/** JSON text, indented and coloured, as a list of nodes. */
export function jsonNodes(text) {
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
      nodes.push(element("span", { class: kindOf(token, next) }, token));
    }
  });
  return nodes;
}

function kindOf(token, next) {
  if (token.startsWith('"')) return next === ":" ? "json-name" : "json-text";
  return /^[-\d]/.test(token) ? "json-number" : "json-word";
}
