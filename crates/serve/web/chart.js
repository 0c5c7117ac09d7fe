// One measure of several runs as curves.

import { h, s, show } from "./dom.js";

const MARGIN = { left: 54, right: 10, top: 10, bottom: 26 };

/** Curves with more points than this are thinned: no screen shows more. */
const MOST_POINTS = 2400;

export class Chart {
  constructor(measure) {
    this.measure = measure;
    this.readout = h("span", { class: "readout", "aria-hidden": "true" });
    this.svg = s("svg", { role: "img" });
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.leave());
    this.element = h("figure", { class: "card chart" }, h("figcaption", null, h("span", { title: measure.axis }, measure.title), this.readout), this.svg);
  }

  /** `curves`: name, line (number of the colour), points [x, y] of training and of evaluations. `axis`: { title, text }. */
  draw(curves, axis, smoothed) {
    this.curves = curves.map((curve) => ({ ...curve, shown: smoothed && this.measure.noisy ? smooth(curve.training) : null }));
    this.axis = axis;
    const all = this.curves.flatMap(({ training, evaluation, shown }) => [...(shown ?? training), ...evaluation]);
    this.element.hidden = !all.length;
    if (!all.length) return;
    // One unit is one pixel, so that labels have the size of other text.
    this.width = this.svg.clientWidth || 560;
    const width = Math.max(this.width, 200);
    const height = Math.round(Math.min(240, Math.max(170, 0.45 * width)));
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const [x0, x1] = extent(all.map(([x]) => x));
    let [y0, y1] = extent(robust(all.map(([, y]) => y)));
    const pad = (y1 - y0 || Math.abs(y1) || 1) * 0.05;
    [y0, y1] = [y0 >= 0 && y0 - pad < 0 ? 0 : y0 - pad, y1 + pad];
    const innerWidth = width - MARGIN.left - MARGIN.right;
    const innerHeight = height - MARGIN.top - MARGIN.bottom;
    this.fullWidth = width;
    this.toX = (x) => MARGIN.left + ((x - x0) / (x1 - x0 || 1)) * innerWidth;
    this.toY = (y) => MARGIN.top + (1 - (y - y0) / (y1 - y0)) * innerHeight;
    this.fromX = (px) => x0 + ((px - MARGIN.left) / innerWidth) * (x1 - x0);
    const bottom = height - MARGIN.bottom;
    const rows = ticks(y0, y1, 5);
    const plain = rows.map((y) => format(y, this.measure.unit));
    const isExact = new Set(plain).size < plain.length;
    const grid = rows.map((y) => [
      s("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: this.toY(y), y2: this.toY(y) }),
      s("text", { x: MARGIN.left - 6, y: this.toY(y) + 4, "text-anchor": "end" }, format(y, this.measure.unit, isExact)),
    ]);
    const across = ticks(x0, x1, Math.max(3, Math.round(width / 95))).map((x) => s("text", { x: this.toX(x), y: bottom + 16, "text-anchor": "middle" }, axis.text(x)));
    const path = (points) => {
      const clamp = (y) => Math.min(Math.max(y, y0 - pad), y1 + pad);
      return thin(points).map(([x, y], i) => `${i ? "L" : "M"}${this.toX(x).toFixed(1)} ${this.toY(clamp(y)).toFixed(1)}`).join("");
    };
    const lines = this.curves.map(({ line, training, evaluation, shown }) =>
      s(
        "g",
        { class: `line-${line}` },
        shown && s("path", { class: "curve raw", d: path(training) }),
        training.length > 0 && s("path", { class: "curve", d: path(shown ?? training) }),
        evaluation.length > 1 && s("path", { class: "curve evaluation", d: path(evaluation) }),
        evaluation.length <= 60 && evaluation.map(([x, y]) => s("circle", { cx: this.toX(x), cy: this.toY(Math.min(Math.max(y, y0), y1)), r: 2.5 })),
      ),
    );
    this.cursor = s("line", { class: "cursor", y1: MARGIN.top, y2: bottom, visibility: "hidden" });
    const clip = `clip-${this.measure.key}`;
    show(
      this.svg,
      s("clipPath", { id: clip }, s("rect", { x: MARGIN.left, y: MARGIN.top - 4, width: innerWidth + 4, height: innerHeight + 8 })),
      grid,
      across,
      s("g", { "clip-path": `url(#${clip})` }, lines),
      this.cursor,
    );
    this.leave();
    const said = this.last().map(({ name, text }) => `${name} ${text}`);
    this.svg.setAttribute("aria-label", `${this.measure.title} by ${axis.title}: ${said.join("; ")}`);
  }

  /** The last values, which are also shown while nothing is pointed at. */
  last() {
    return this.values((points) => points.at(-1));
  }

  /** A value of each run's curves, as text. */
  values(choose) {
    const text = ([, y]) => format(y, this.measure.unit, true);
    return this.curves.flatMap(({ name, line, training, evaluation, shown }) => {
      const [trained, evaluated] = [choose(shown ?? training), choose(evaluation)];
      const parts = [trained && text(trained), evaluated && `eval ${text(evaluated)}`].filter(Boolean);
      return parts.length ? [{ name, line, points: [trained, evaluated].filter(Boolean), text: parts.join(", ") }] : [];
    });
  }

  /** Shows values, each with the colour of its run. */
  read(before, values) {
    const dot = ({ line }) => h("span", { class: `dot line-${line}` });
    show(this.readout, before, values.map((value) => h("span", { class: "reading-value" }, this.curves.length > 1 && dot(value), value.text)));
  }

  point(event) {
    if (!this.curves) return;
    const box = this.svg.getBoundingClientRect();
    const x = this.fromX(((event.clientX - box.left) / box.width) * this.fullWidth);
    const near = this.values((points) => nearest(points, x));
    const at = near.flatMap(({ points }) => points);
    if (!at.length) return;
    const [closest] = at.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
    this.cursor.setAttribute("visibility", "visible");
    for (const name of ["x1", "x2"]) this.cursor.setAttribute(name, this.toX(closest));
    this.read(`${this.axis.title} ${this.axis.text(closest)}: `, near);
  }

  leave() {
    this.cursor?.setAttribute("visibility", "hidden");
    this.read("", this.last());
  }
}

function extent(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return [low, high];
}

/** Without the few values that are so far out that the others would be a line. */
function robust(values) {
  if (values.length < 50) return values;
  const sorted = values.toSorted((a, b) => a - b);
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  const [low, high] = [at(0.01), at(0.99)];
  const room = 3 * (high - low);
  return values.filter((value) => value >= low - room && value <= high + room);
}

/** The mean of each point and its neighbours, as many before as after. */
function smooth(points) {
  const reach = Math.max(1, Math.round(points.length / 50));
  const sums = [0];
  for (const [, y] of points) sums.push(sums.at(-1) + y);
  return points.map(([x], i) => {
    const side = Math.min(reach, i, points.length - 1 - i);
    return [x, (sums[i + side + 1] - sums[i - side]) / (2 * side + 1)];
  });
}

/** Of each group of neighbours, the lowest and the highest, so that no peak is lost. */
function thin(points) {
  if (points.length <= MOST_POINTS) return points;
  const group = Math.ceil((2 * points.length) / MOST_POINTS);
  const kept = [];
  for (let first = 0; first < points.length; first += group) {
    const some = points.slice(first, first + group);
    const low = some.reduce((a, b) => (b[1] < a[1] ? b : a));
    const high = some.reduce((a, b) => (b[1] > a[1] ? b : a));
    kept.push(...(low[0] < high[0] ? [low, high] : low === high ? [low] : [high, low]));
  }
  return kept;
}

function nearest(points, x) {
  if (!points.length) return undefined;
  let [low, high] = [0, points.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] <= x) low = middle;
    else high = middle;
  }
  return Math.abs(points[low][0] - x) <= Math.abs(points[high][0] - x) ? points[low] : points[high];
}

/** Round values from low to high, about `count`. */
export function ticks(low, high, count) {
  const rough = (high - low) / count || Math.abs(high) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999) ?? power;
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * step && found.length < 12; n++) found.push(n * step);
  return found;
}

/** A value in its unit; with more digits if `exact`. */
export function format(value, unit, exact) {
  if (value === undefined || value === null) return "–";
  const size = Math.abs(value);
  switch (unit) {
    case "percent":
      return `${trim((100 * value).toFixed(exact ? 2 : 1))} %`;
    case "rate":
      return size === 0 ? "0" : size >= 0.01 ? trim(value.toPrecision(3)) : value.toExponential(exact ? 2 : 1).replace(/\.?0+e/, "e");
    case "count":
      return compact(value);
    case "score":
      return size < 100 ? (exact ? value.toFixed(3) : trim(value.toFixed(3))) : compact(value);
    default:
      return size !== 0 && size < 1e-3 ? value.toExponential(1) : size < 1e4 ? trim(value.toPrecision(exact ? 4 : 3)) : compact(value);
  }
}

/** 12,345 as 12.3k. */
export function compact(value) {
  const size = Math.abs(value);
  for (const [limit, unit] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= limit) {
      const scaled = value / (unit === "k" ? 1e3 : limit);
      return `${trim(scaled.toFixed(Math.abs(scaled) < 100 ? 1 : 0))}${unit}`;
    }
  }
  return trim(value.toFixed(size < 10 && size % 1 ? 2 : 0));
}

function trim(text) {
  return text.includes(".") && !text.includes("e") ? text.replace(/\.?0+$/, "") : text;
}
