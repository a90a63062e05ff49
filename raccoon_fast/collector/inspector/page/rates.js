const WINDOW_S = 5;
const KEPT_S = 65;

/** Remembers counts, and says how fast they grow. */
export class Rates {
  #snapshots = [];
  #since = null;

  /** Takes the counts of one moment, by name; `since` is when counting began: another one forgets what was before. */
  add(time, since, counts) {
    const last = this.#snapshots.at(-1);
    if (since !== this.#since || (last !== undefined && time <= last.time)) this.#snapshots = [];
    this.#since = since;
    this.#snapshots.push({ time, counts });
    this.#snapshots = this.#snapshots.filter((snapshot) => snapshot.time > time - KEPT_S);
  }

  /** By how much a count grew a second, over the last few seconds; null while that is not known. */
  of(name) {
    const last = this.#snapshots.at(-1);
    const first = this.#snapshots.find((snapshot) => snapshot.time >= last.time - WINDOW_S - 0.5);
    return first === last ? null : growth(first, last, name);
  }

  /** The same from each moment to the next, for the last minute. */
  history(name) {
    return this.#snapshots.slice(1).map((snapshot, index) => growth(this.#snapshots[index], snapshot, name));
  }
}

function growth(first, last, name) {
  return ((last.counts[name] ?? 0) - (first.counts[name] ?? 0)) / (last.time - first.time);
}
