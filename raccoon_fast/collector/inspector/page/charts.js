const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 600;
const HEIGHT = 60;

/** A chart of lines, each as high as the whole; `names` are their classes. */
export function chart(names) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.classList.add("chart");
  for (const name of names) {
    const line = document.createElementNS(SVG, "polyline");
    line.classList.add(name);
    svg.append(line);
  }
  return svg;
}

/** Draws lists of values, one per line; `label` says the same in words. */
export function draw(svg, lists, label) {
  svg.setAttribute("aria-label", label);
  lists.forEach((values, index) => {
    const highest = Math.max(...values, 1e-9);
    const points = values.map((value, place) => {
      const x = (place / Math.max(1, values.length - 1)) * WIDTH;
      return `${x.toFixed(1)},${(HEIGHT - 1 - (value / highest) * (HEIGHT - 2)).toFixed(1)}`;
    });
    svg.children[index].setAttribute("points", points.join(" "));
  });
}

/** Counts of equal periods as rates a second; the last period is the one of `now`, which is not over yet. */
export function ratesOf(counts, period, now) {
  const elapsed = Math.max(1, now % period);
  return counts.map((count, index) => count / (index === counts.length - 1 ? elapsed : period));
}
