const COUNT = new Intl.NumberFormat();
const RATE = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });

export const PROTOCOLS = { rest: "REST", websocket: "WebSocket", grpc: "gRPC" };

export const count = (number) => COUNT.format(number);

export function rate(perSecond) {
  if (perSecond === null) return "";
  return perSecond < 100 ? RATE.format(perSecond) : COUNT.format(Math.round(perSecond));
}

export function seconds(value) {
  const size = Math.abs(value);
  if (size < 0.01) return `${(value * 1000).toFixed(2)} ms`;
  if (size < 1) return `${(value * 1000).toFixed(0)} ms`;
  if (size < 100) return `${value.toFixed(1)} s`;
  return duration(value);
}

export function duration(value) {
  const whole = Math.max(0, Math.floor(value));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  if (hours) return `${count(hours)} h ${minutes} min`;
  return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

export function bytes(size) {
  if (size < 1024) return `${size} B`;
  return size < 1024 * 1024 ? `${(size / 1024).toFixed(1)} KiB` : `${(size / 1024 / 1024).toFixed(1)} MiB`;
}

export function time(epochSeconds) {
  const date = new Date(epochSeconds * 1000);
  if (Number.isNaN(date.getTime())) return String(epochSeconds);
  const part = (value, width = 2) => String(value).padStart(width, "0");
  return `${part(date.getHours())}:${part(date.getMinutes())}:${part(date.getSeconds())}.${part(date.getMilliseconds(), 3)}`;
}

export function dateTime(epochSeconds) {
  const date = new Date(epochSeconds * 1000);
  if (Number.isNaN(date.getTime())) return String(epochSeconds);
  return `${date.getFullYear()}-${String(date.getMonth() + 1).padStart(2, "0")}-${String(date.getDate()).padStart(2, "0")} ${time(epochSeconds)}`;
}

/** A part of a whole, in percent; nothing where there is none. */
export function share(part, whole) {
  if (part === 0 || whole === 0) return "0";
  const percent = (part / whole) * 100;
  return percent < 0.1 ? "<0.1 %" : `${RATE.format(percent)} %`;
}

/** How long ago, short. */
export function ago(value) {
  const whole = Math.max(0, Math.floor(value));
  if (whole < 60) return `${whole} s`;
  return whole < 3600 ? `${Math.floor(whole / 60)} min` : `${count(Math.floor(whole / 3600))} h`;
}
