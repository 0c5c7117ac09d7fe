// The attention viewer: layers × heads as thumbnails, the lines and the matrix of one head.

import { pipeline } from "./api.js";
import { field, h, roving, s, show, textarea } from "./dom.js";
import { Live, announce } from "./live.js";

/** Height of a token's line in pixels, as in the style sheet. */
const LINE = 22;
/** Below this probability, a line is drawn only while its token is pointed at. */
const VISIBLE = 0.04;
/** At most this many probabilities are requested at once. */
const MANY = 1_500_000;
/** Pixels of a thumbnail. */
const THUMBNAIL = 28;

export function attentionPanel(context) {
  const { model, saved } = context;
  const changed = () => {
    Object.assign(saved, { text: first.value, pair: second.value });
    live.changed();
  };
  const first = textarea(saved.text ?? "The animal didn't cross the street because it was too tired.", 2, changed);
  const second = textarea(saved.pair ?? "", 2, changed);
  const viewer = new Viewer(saved);
  const live = new Live(async (signal) => {
    const inputs = second.value.trim() ? [first.value, second.value] : first.value;
    const load = async (layers) => pipeline(model.id, "attention", { inputs, parameters: { layers } }, signal);
    // The first answer tells how many there are.
    const start = await load([Math.min(saved.layer ?? 0, saved.layers ? saved.layers - 1 : 0)]).catch((error) => {
      saved.layer = saved.layers = undefined;
      throw error;
    });
    if (signal.aborted) return "";
    const { layers, heads, tokens } = start;
    saved.layers = layers;
    viewer.reset(tokens, layers, heads);
    viewer.add(start);
    live.show(signal, viewer.element);
    const missing = [...Array(layers).keys()].filter((layer) => !viewer.has(layer));
    const atOnce = Math.max(1, Math.floor(MANY / (heads * tokens.length ** 2)));
    while (missing.length) {
      const answer = await load(missing.splice(0, atOnce));
      if (signal.aborted) return "";
      viewer.add(answer);
    }
    return `${tokens.length} tokens, ${layers} layers of ${heads} heads. ${viewer.describe()}`;
  });
  const form = h("div", { class: "card form two" }, field("Text", first), field("Second text", second, "optional"));
  const element = h("div", { class: "stack" }, form, h("div", { class: "card" }, live.element));
  return { element, live };
}

class Viewer {
  constructor(saved) {
    this.saved = saved;
    this.saved.shows ??= "pattern";
    this.grid = h("div", { class: "heads", role: "grid", "aria-label": "Heads: layers in rows" });
    this.shows = h(
      "select",
      {
        onchange: () => {
          this.saved.shows = this.shows.value;
          this.cells.forEach((_, at) => this.drawCell(at));
        },
      },
      ["pattern", "entropy", "distance"].map((name) => h("option", { value: name }, name)),
    );
    this.shows.value = this.saved.shows;
    this.special = h("input", { type: "checkbox", onchange: () => this.draw() });
    this.title = h("h3");
    this.figures = h("dl", { class: "figures" });
    this.lines = h("div", { class: "lines scroll", tabindex: "-1" });
    this.canvas = h("canvas", { class: "map", role: "img" });
    this.readout = h("p", { class: "readout", "aria-hidden": "true" });
    this.canvas.addEventListener("pointermove", (event) => this.pointAtMap(event));
    this.canvas.addEventListener("pointerleave", () => (this.readout.textContent = "\u00a0"));
    this.element = h(
      "div",
      { class: "viewer" },
      h(
        "div",
        { class: "viewer-heads" },
        h("div", { class: "toolbar" }, field("Cells show", this.shows)),
        h("div", { class: "scroll" }, this.grid),
        h("p", { class: "count" }, "Rows: layers. Columns: heads. Arrow keys choose."),
      ),
      h(
        "div",
        { class: "viewer-head" },
        h("div", { class: "toolbar" }, this.title, h("label", { class: "check" }, this.special, "Hide special tokens")),
        this.figures,
        h("div", { class: "viewer-views" }, this.lines, h("div", { class: "viewer-map" }, this.canvas, this.readout)),
      ),
    );
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.element.isConnected && this.redraw());
  }

  /** Starts with another text; nothing is known of its layers yet. */
  reset(tokens, layers, heads) {
    const isNew = layers !== this.layers || heads !== this.heads;
    Object.assign(this, { tokens, layers, heads, maps: Array(layers * heads).fill(null), pointed: null });
    this.saved.layer = Math.min(this.saved.layer ?? 0, layers - 1);
    this.saved.head = Math.min(this.saved.head ?? 0, heads - 1);
    if (isNew) this.buildGrid();
    else this.cells.forEach((_, at) => this.drawCell(at));
  }

  has(layer) {
    return this.maps[layer * this.heads] !== null;
  }

  /** Adds the layers of an answer. */
  add({ layer_numbers, attention, entropy, distance }) {
    const numbers = layer_numbers ?? attention.map((_, layer) => layer);
    numbers.forEach((layer, i) => {
      for (let head = 0; head < this.heads; head++) {
        const at = layer * this.heads + head;
        this.maps[at] = { rows: attention[i][head], entropy: entropy[i][head], distance: distance[i][head] };
      }
    });
    // The shades of entropy and distance are relative to all heads that are known.
    this.cells.forEach((_, at) => (this.saved.shows !== "pattern" || numbers.includes(Math.floor(at / this.heads))) && this.drawCell(at));
    if (numbers.includes(this.saved.layer)) this.draw();
  }

  redraw() {
    this.cells.forEach((_, at) => this.drawCell(at));
    this.draw();
  }

  get selected() {
    return this.saved.layer * this.heads + this.saved.head;
  }

  describe() {
    const map = this.maps[this.selected];
    const place = `Layer ${this.saved.layer + 1}, head ${this.saved.head + 1}`;
    return map ? `${place}: entropy ${map.entropy.toFixed(2)} nats, mean distance ${map.distance.toFixed(1)} tokens.` : place;
  }

  // ---------------------------------------------------------------------------------------------- the grid of heads

  buildGrid() {
    this.cells = [];
    const header = h("div", { class: "heads-row", role: "row" }, h("span", { class: "heads-label", role: "columnheader" }, h("span", { class: "visually-hidden" }, "Layer")), [...Array(this.heads).keys()].map((head) => h("span", { class: "heads-label", role: "columnheader" }, String(head + 1))));
    const rows = [...Array(this.layers).keys()].map((layer) => {
      const cells = [...Array(this.heads).keys()].map((head) => {
        const cell = h("button", { type: "button", role: "gridcell", class: "cell", tabindex: "-1", onclick: () => this.select(layer * this.heads + head) }, h("canvas", { "aria-hidden": "true" }));
        this.cells.push(cell);
        return cell;
      });
      return h("div", { class: "heads-row", role: "row" }, h("span", { class: "heads-label", role: "rowheader" }, String(layer + 1)), cells);
    });
    show(this.grid, header, rows);
    this.grid.onkeydown = roving(this.cells, this.heads, (at) => this.select(at));
    this.markSelected();
    this.cells.forEach((_, at) => this.drawCell(at));
  }

  select(at) {
    this.saved.layer = Math.floor(at / this.heads);
    this.saved.head = at % this.heads;
    this.markSelected();
    this.draw();
    announce(this.describe());
  }

  markSelected() {
    this.cells.forEach((cell, at) => {
      cell.setAttribute("tabindex", at === this.selected ? "0" : "-1");
      cell.setAttribute("aria-selected", String(at === this.selected));
    });
  }

  /** Draws the thumbnail of a head, or a figure of it. */
  drawCell(at) {
    const [cell, map] = [this.cells[at], this.maps[at]];
    const canvas = cell.firstChild;
    const place = `Layer ${Math.floor(at / this.heads) + 1}, head ${(at % this.heads) + 1}`;
    cell.setAttribute("aria-label", map ? `${place}: entropy ${map.entropy.toFixed(2)}, distance ${map.distance.toFixed(1)}` : place);
    cell.title = cell.getAttribute("aria-label");
    const ratio = Math.min(devicePixelRatio || 1, 2);
    canvas.width = canvas.height = THUMBNAIL * ratio;
    if (!map) return;
    const pen = canvas.getContext("2d");
    const { accent, ink } = colours();
    if (this.saved.shows === "pattern") {
      const image = pixels(map.rows, accent);
      pen.imageSmoothingEnabled = map.rows.length > canvas.width;
      pen.drawImage(image, 0, 0, canvas.width, canvas.height);
      return;
    }
    const values = this.maps.filter((known) => known).map((known) => known[this.saved.shows]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const share = high > low ? (map[this.saved.shows] - low) / (high - low) : 0;
    pen.fillStyle = `rgb(${accent.join(" ")} / ${0.08 + 0.72 * share})`;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.fillStyle = share > 0.6 ? "#fff" : ink;
    pen.font = `${11 * ratio}px system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    const value = map[this.saved.shows];
    pen.fillText(value.toFixed(value < 9.95 ? 1 : 0), canvas.width / 2, canvas.height / 2);
  }

  // ---------------------------------------------------------------------------------------------- the chosen head

  draw() {
    const map = this.maps[this.selected];
    this.title.textContent = `Layer ${this.saved.layer + 1}, head ${this.saved.head + 1}`;
    if (!map) {
      show(this.figures);
      show(this.lines);
      return;
    }
    const figure = (name, value) => h("div", null, h("dt", null, name), h("dd", null, value));
    show(
      this.figures,
      figure("Entropy", `${map.entropy.toFixed(2)} nats`),
      figure("of at most", `${Math.log(this.tokens.length).toFixed(2)} nats`),
      figure("Mean distance", `${map.distance.toFixed(2)} tokens`),
    );
    this.drawLines(map.rows);
    this.drawMap(map.rows);
  }

  isHidden(token) {
    return this.special.checked && this.tokens[token].special;
  }

  drawLines(rows) {
    const count = this.tokens.length;
    const height = count * LINE;
    const all = [];
    rows.forEach((row, from) =>
      row.forEach((p, to) => {
        if (p >= 0.005 && !this.isHidden(from) && !this.isHidden(to)) all.push({ from, to, p });
      }),
    );
    // A long text has too many lines to make all of them.
    const draw = ({ from, to, p }) => {
      const line = s("line", { x1: 0, y1: (from + 0.5) * LINE, x2: 100, y2: (to + 0.5) * LINE, "stroke-width": (0.75 + 2.25 * p).toFixed(2), "vector-effect": "non-scaling-stroke" });
      line.style.setProperty("--p", Math.min(1, 0.12 + p).toFixed(3));
      return line;
    };
    const drawing = s("svg", { viewBox: `0 0 100 ${height}`, preserveAspectRatio: "none", height, "aria-hidden": "true" });
    const label = (side, i) => {
      const token = this.tokens[i];
      const props = {
        type: "button",
        class: `token${token.special ? " special" : ""}`,
        tabindex: i === 0 && side === "from" ? "0" : "-1",
        onpointerenter: () => point(side, i),
        onpointerleave: () => point(null),
        onfocus: () => point(side, i),
        onblur: () => point(null),
      };
      return h("button", props, token.text || "␣");
    };
    const sides = { from: this.tokens.map((_, i) => label("from", i)), to: this.tokens.map((_, i) => label("to", i)) };
    // Lines of the token that is pointed at, or all that are strong enough.
    const point = (side, i) => {
      const shown = side ? all.filter((line) => line[side] === i) : all.filter(({ p }) => p >= VISIBLE);
      show(drawing, shown.map(draw));
      const other = side === "from" ? "to" : "from";
      for (const name of ["from", "to"]) {
        sides[name].forEach((element, at) => {
          let p = 0;
          if (side && name === other) p = side === "from" ? rows[i][at] : rows[at][i];
          element.style.setProperty("--p", p.toFixed(3));
          element.classList.toggle("pointed", side === name && at === i);
        });
      }
      if (side) {
        const top = shown.toSorted((a, b) => b.p - a.p).slice(0, 3);
        const verb = side === "from" ? "attends to" : "is attended to by";
        announce(`${this.tokens[i].text} ${verb} ${top.map((line) => `${this.tokens[line[other]].text} ${line.p.toFixed(2)}`).join(", ")}`);
      }
    };
    const column = (side, name) => h("div", { class: `tokens ${side}`, role: "group", "aria-label": name, onkeydown: (event) => {
      const elements = sides[side];
      const at = elements.indexOf(event.target);
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
        sides[side === "from" ? "to" : "from"][at]?.focus();
      } else if (step && elements[at + step]) {
        elements[at + step].focus();
      } else return;
      event.preventDefault();
    } }, sides[side]);
    show(this.lines, column("from", "Tokens that attend"), drawing, column("to", "Tokens attended to"));
    point(null);
  }

  /** The probabilities of a head: rows attend to columns. */
  drawMap(rows) {
    const count = this.tokens.length;
    const labelled = count <= 48;
    const cell = Math.max(1, Math.min(20, Math.floor((labelled ? 290 : 512) / count)));
    const space = labelled ? 68 : 0;
    const side = space + cell * count;
    const ratio = Math.min(devicePixelRatio || 1, 2);
    Object.assign(this.canvas, { width: side * ratio, height: side * ratio });
    this.canvas.style.setProperty("--side", `${side}px`);
    this.canvas.setAttribute("aria-label", `Matrix of ${this.title.textContent}: rows attend to columns`);
    this.place = { space, cell, side };
    const { accent, ink, edge } = colours();
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(pixels(rows, accent), space, space, cell * count, cell * count);
    pen.strokeStyle = edge;
    pen.strokeRect(space + 0.5, space + 0.5, cell * count - 1, cell * count - 1);
    if (labelled) {
      pen.fillStyle = ink;
      pen.font = `${Math.min(11, cell)}px system-ui, sans-serif`;
      pen.textBaseline = "middle";
      this.tokens.forEach(({ text }, i) => {
        const shown = text.length > 11 ? `${text.slice(0, 10)}…` : text;
        pen.textAlign = "right";
        pen.fillText(shown, space - 4, space + (i + 0.5) * cell);
        pen.save();
        pen.translate(space + (i + 0.5) * cell, space - 4);
        pen.rotate(-Math.PI / 2);
        pen.textAlign = "left";
        pen.fillText(shown, 0, 0);
        pen.restore();
      });
    }
    this.readout.textContent = "\u00a0";
  }

  pointAtMap(event) {
    const { space, cell, side } = this.place;
    const box = this.canvas.getBoundingClientRect();
    const scale = side / box.width;
    const to = Math.floor(((event.clientX - box.left) * scale - space) / cell);
    const from = Math.floor(((event.clientY - box.top) * scale - space) / cell);
    const p = this.maps[this.selected]?.rows[from]?.[to];
    this.readout.textContent = p === undefined ? "\u00a0" : `${this.tokens[from].text} → ${this.tokens[to].text}: ${p.toFixed(4)}`;
  }
}

/** The colours of the style sheet, for drawing. */
function colours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  const accent = read("--accent-rgb").split(/\s+/).map(Number);
  return { accent, ink: read("--ink-soft"), edge: read("--edge") };
}

/** Probabilities as the opacity of a colour. The root makes small ones visible. */
function pixels(rows, [red, green, blue]) {
  const count = rows.length;
  const image = new ImageData(count, count);
  rows.forEach((row, i) =>
    row.forEach((p, j) => {
      image.data.set([red, green, blue, Math.round(255 * Math.sqrt(p))], 4 * (i * count + j));
    }),
  );
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = count;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
