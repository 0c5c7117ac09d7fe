// Training runs: their list, and the curves of the chosen ones, which grow while they are trained.

import { request } from "./api.js";
import { Chart, compact, format } from "./chart.js";
import { checkbox, field, h, show, skipLink } from "./dom.js";

/** Between two requests while a run is running, and otherwise. */
const POLL_MS = 3000;
const IDLE_MS = 15000;
const COLOURS = 8;
/** This many runs are shown at first. */
const FIRST = 4;

const table = document.getElementById("runs");
const controls = document.getElementById("controls");
const place = document.getElementById("charts");
const error = document.getElementById("error");

/** The runs of the server, in its order. */
let runs = [];
/** The curves by run: as GET /runs/NAME.json, merged. */
const series = new Map();
/** Names of the shown runs. */
let chosen = null;
let enabled = true;
const settings = { x: "step", smooth: true };
const charts = new Map();

const AXES = {
  step: { title: "step", column: "step", text: compact },
  tokens: { title: "tokens", column: "tokens", text: compact },
  seconds: { title: "time", column: "seconds", text: duration },
  epoch: { title: "epoch", column: "epoch", text: (value) => format(value, "plain") },
};

function duration(seconds) {
  if (seconds === undefined || seconds === null) return "–";
  if (seconds < 180) return `${Math.round(seconds)} s`;
  if (seconds < 3 * 3600) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

function readHash() {
  const named = new URLSearchParams(location.hash.slice(1));
  if (named.has("run")) chosen = new Set(named.getAll("run"));
  if (named.get("x") in AXES) settings.x = named.get("x");
  if (named.has("smooth")) settings.smooth = named.get("smooth") !== "0";
}

function writeHash() {
  const named = new URLSearchParams([...(chosen ?? [])].map((name) => ["run", name]));
  named.set("x", settings.x);
  if (!settings.smooth) named.set("smooth", "0");
  history.replaceState(null, "", `#${named}`);
}

async function poll() {
  let pause = IDLE_MS;
  try {
    const list = await request("runs.json");
    ({ runs, enabled } = list);
    if (!chosen && runs.length) {
      const newest = runs.toSorted((a, b) => (b.status === "running") - (a.status === "running") || b.updated - a.updated);
      // Losses of different kinds of runs are not comparable.
      const alike = newest.filter(({ kind }) => kind === newest[0].kind);
      chosen = new Set(alike.slice(0, FIRST).map(({ name }) => name));
    }
    await Promise.all(runs.filter(({ name }) => chosen?.has(name)).map(load));
    error.hidden = true;
    drawTable();
    drawCharts();
    if (runs.some(({ status }) => status === "running")) pause = POLL_MS;
  } catch (problem) {
    error.hidden = false;
    error.textContent = problem.message;
  }
  // Nothing is requested for a page that nobody sees.
  setTimeout(() => (document.hidden ? document.addEventListener("visibilitychange", poll, { once: true }) : poll()), pause);
}

/** Gets the records of a run that are new since the last time. */
async function load(run) {
  const known = series.get(run.name);
  const isSame = known && known.starts === run.starts && known.step <= run.step;
  if (isSame && known.updated === run.updated && known.status === run.status) return;
  const path = `runs/${run.name.split("/").map(encodeURIComponent).join("/")}.json`;
  // The last step may have got an evaluation.
  let found = await request(isSame ? `${path}?after=${known.step}` : path);
  // Resumed just now: steps may be repeated.
  if (isSame && found.starts !== known.starts) found = await request(path);
  else if (isSame) {
    found.training = append(known.training, found.training);
    found.evaluation = append(known.evaluation, found.evaluation);
  }
  series.set(run.name, found);
}

/** Records followed by newer ones, which replace those of the same steps. */
function append(old, more) {
  if (!more.step.length) return old;
  const kept = old.step.findLastIndex((step) => step < more.step[0]) + 1;
  const join = (a, b) => [...a.slice(0, kept), ...b];
  const empty = (records) => Array(records.step.length).fill(null);
  const keys = new Set([...Object.keys(old.values), ...Object.keys(more.values)]);
  return {
    step: join(old.step, more.step),
    epoch: join(old.epoch, more.epoch),
    tokens: join(old.tokens, more.tokens),
    seconds: join(old.seconds, more.seconds),
    values: Object.fromEntries([...keys].map((key) => [key, join(old.values[key] ?? empty(old), more.values[key] ?? empty(more))])),
  };
}

const colourOf = (name) => runs.findIndex((run) => run.name === name) % COLOURS;

function drawTable() {
  if (!runs.length) {
    show(table, h("tbody", null, h("tr", null, h("td", null, enabled ? "There are no runs yet." : "The server was started without runs: cloze serve MODEL --run FOLDER."))));
    return;
  }
  // Rows are kept, so that a focused checkbox stays focused.
  const focused = document.activeElement?.dataset?.run;
  const columns = ["Run", "State", "Step", "Loss", "Evaluation", "Tokens/s", "Time"];
  const numeric = new Set(["Step", "Loss", "Evaluation", "Tokens/s", "Time"]);
  const rows = runs.map((run) => {
    const { box, element } = checkbox(run.name, chosen.has(run.name), () => {
      if (box.checked) chosen.add(run.name);
      else chosen.delete(run.name);
      writeHash();
      drawCharts();
      if (!box.checked) return;
      load(run).then(drawCharts, (problem) => {
        error.hidden = false;
        error.textContent = problem.message;
      });
    });
    box.dataset.run = run.name;
    box.after(h("span", { class: `swatch line-${colourOf(run.name)}` }));
    const steps = run.steps ? `${compact(run.step)} / ${compact(run.steps)}` : compact(run.step);
    return h(
      "tr",
      null,
      h("th", { scope: "row" }, element),
      h("td", null, h("span", { class: `state ${run.status}` }, run.status)),
      h("td", { class: "number" }, steps),
      h("td", { class: "number" }, run.loss === null ? "–" : run.loss.toFixed(3)),
      h("td", { class: "number", title: run.score?.[0] }, run.score?.[1] ?? "–"),
      h("td", { class: "number" }, run.tokens_per_s === null ? "–" : compact(run.tokens_per_s)),
      h("td", { class: "number" }, duration(run.seconds)),
    );
  });
  show(
    table,
    h("caption", { class: "visually-hidden" }, "Runs"),
    h("thead", null, h("tr", null, columns.map((name) => h("th", { scope: "col", class: numeric.has(name) ? "number" : undefined }, name)))),
    h("tbody", null, rows),
  );
  if (focused) [...table.querySelectorAll("input")].find((box) => box.dataset.run === focused)?.focus();
}

function drawControls() {
  const axis = h(
    "select",
    {
      onchange: () => {
        settings.x = axis.value;
        writeHash();
        drawCharts();
      },
    },
    Object.entries(AXES).map(([key, { title }]) => h("option", { value: key }, title)),
  );
  axis.value = settings.x;
  const smooth = checkbox("Smooth", settings.smooth, () => {
    settings.smooth = smooth.box.checked;
    writeHash();
    drawCharts();
  });
  show(controls, field("By", axis), h("span", { class: "count" }, "Solid: training. Dashed with dots: evaluations."), smooth.element);
}

/** [x, y] of a measure where both are known. */
function points(records, key, column) {
  const values = records.values[key];
  if (!values) return [];
  const found = [];
  values.forEach((y, i) => {
    const x = records[column][i] ?? interpolated(records, column, i);
    if (y !== null && x !== null) found.push([x, y]);
  });
  return found;
}

/** Some records have no tokens or epochs: those of their neighbours, by step. */
function interpolated(records, column, at) {
  const known = records.fallback?.[column];
  if (!known?.length) return null;
  const step = records.step[at];
  const after = known.findIndex(([s]) => s >= step);
  if (after < 0) return known.at(-1)[1];
  const [s1, x1] = known[after];
  const [s0, x0] = after ? known[after - 1] : [0, 0];
  return s1 === s0 ? x1 : x0 + ((x1 - x0) * (step - s0)) / (s1 - s0);
}

function drawCharts() {
  const shown = runs.filter(({ name }) => chosen?.has(name) && series.has(name)).map(({ name }) => series.get(name));
  const axis = AXES[settings.x];
  const measures = new Map(shown.flatMap((run) => run.measures.map((measure) => [measure.key, measure])));
  for (const run of shown) {
    const both = [run.training, run.evaluation];
    const known = (column) => both.flatMap((records) => records.step.map((step, i) => [step, records[column][i]])).filter(([, x]) => x !== null).sort((a, b) => a[0] - b[0]);
    const fallback = settings.x === "step" ? {} : { [axis.column]: known(axis.column) };
    both.forEach((records) => (records.fallback = fallback));
  }
  const wanted = [...measures.values()];
  for (const [key] of charts) if (!measures.has(key)) charts.delete(key);
  for (const measure of wanted) if (!charts.has(measure.key)) charts.set(measure.key, new Chart(measure));
  // In the page before they are drawn, because they fit their width.
  const elements = wanted.map(({ key }) => charts.get(key).element);
  const isSame = elements.length === place.children.length && elements.every((element, i) => element === place.children[i]);
  if (!isSame) show(place, elements);
  if (!elements.length) show(place, h("p", { class: "empty" }, runs.length ? "Choose a run above." : ""));
  for (const measure of wanted) {
    const curves = shown.map((run) => ({
      name: run.name,
      line: colourOf(run.name),
      training: points(run.training, measure.key, axis.column),
      evaluation: points(run.evaluation, measure.key, axis.column),
    }));
    charts.get(measure.key).draw(curves.filter(({ training, evaluation }) => training.length || evaluation.length), axis, settings.smooth);
  }
}

let resized = 0;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(drawCharts, 100);
});

skipLink();
readHash();
drawControls();
poll();
