// Vectors of texts and of tokens.

import { pipeline, request } from "./api.js";
import { bar, field, h, lines } from "./dom.js";
import { area, hint, panel } from "./form.js";
import { Live } from "./live.js";

const SENTENCES = "A man is playing a guitar.\nSomeone plays an instrument.\nThe stock market fell today.\nShares lost value.\nA cat sleeps on the sofa.";

/** Sentences and the cosines of their vectors. */
export function similarity(context) {
  const { model } = context;
  const text = area(context, "sentences", SENTENCES, 7, () => live);
  const live = new Live(async (signal) => {
    const all = lines(text.value);
    if (all.length < 2) {
      live.show(signal, hint("Write at least two sentences, one a line."));
      return "";
    }
    const vectors = await pipeline(model.id, "feature-extraction", { inputs: all, normalize: true }, signal);
    const cosines = vectors.map((a) => vectors.map((b) => cosine(a, b)));
    let best = [0, 1];
    for (let i = 0; i < all.length; i++) for (let j = i + 1; j < all.length; j++) if (cosines[i][j] > cosines[best[0]][best[1]]) best = [i, j];
    live.show(
      signal,
      matrix(all, cosines),
      h("p", { class: "count" }, `Most similar: ${best[0] + 1} and ${best[1] + 1} (${cosines[best[0]][best[1]].toFixed(3)}) · ${vectors[0].length} dimensions`),
    );
    return `Most similar: sentences ${best[0] + 1} and ${best[1] + 1}`;
  });
  return panel([field("Sentences", text, "one a line")], live);
}

/** A table of the cosines of things, from the least similar to the most. */
function matrix(names, cosines) {
  const [lowest, highest] = range(cosines);
  const share = (value) => (highest > lowest ? (value - lowest) / (highest - lowest) : 0);
  const cell = (value, i, j) => {
    const shade = i === j ? 0 : share(value);
    return h("td", { class: i === j ? "heat self" : "heat", vars: { "--heat": `${(4 + 51 * shade).toFixed(0)}%` }, title: `${i + 1} and ${j + 1}: ${value.toFixed(4)}` }, value.toFixed(2));
  };
  const rows = names.map((name, i) =>
    h("tr", null, h("th", { scope: "row" }, h("span", { class: "rank" }, String(i + 1)), h("span", { class: "sentence", title: name }, name)), cosines[i].map((value, j) => cell(value, i, j))),
  );
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      { class: "matrix" },
      h("caption", null, "Cosine similarity"),
      h("thead", null, h("tr", null, h("td"), names.map((_, i) => h("th", { scope: "col" }, String(i + 1))))),
      h("tbody", null, rows),
    ),
  );
}

/** At most this many tokens are compared with each other. */
const MOST = 40;

/** The vectors of a text's tokens before pooling: their norms, and which are similar. */
export function tokenVectors(context) {
  const { model } = context;
  const text = area(context, "text", "The bank of the river, and the bank that lends money.", 3, () => live);
  const live = new Live(async (signal) => {
    if (!text.value.trim()) {
      live.show(signal, hint("Write a text."));
      return "";
    }
    const [[vectors], [pieces]] = await Promise.all([
      request("embed_all", { inputs: text.value, model: model.id, truncate: true }, signal),
      pipeline(model.id, "tokenize", { inputs: [text.value] }, signal),
    ]);
    // They differ if the model's folder has a prompt, or the text is too long.
    const names = vectors.map((_, i) => (pieces.length === vectors.length ? pieces[i].text : `token ${i + 1}`));
    const norms = vectors.map((vector) => Math.hypot(...vector));
    const largest = Math.max(...norms, 1e-9);
    const some = vectors.slice(0, MOST);
    live.show(
      signal,
      h("p", { class: "count" }, `${vectors.length} tokens · ${vectors[0].length} dimensions`),
      h("h3", null, "Norms"),
      h("div", { class: "norms" }, names.map((name, i) => bar(name, norms[i] / largest, norms[i].toFixed(3)))),
      matrix(names.slice(0, MOST), some.map((a) => some.map((b) => cosine(a, b)))),
      vectors.length > MOST && h("p", { class: "count" }, `The first ${MOST} tokens are compared.`),
    );
    return `${vectors.length} vectors`;
  });
  return panel([field("Text", text)], live);
}

function cosine(a, b) {
  let [dot, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return dot / Math.sqrt(aa * bb || 1);
}

/** The range of the values off the diagonal. */
function range(matrix) {
  let [low, high] = [Infinity, -Infinity];
  matrix.forEach((row, i) => row.forEach((value, j) => {
    if (i === j) return;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }));
  return [low, high];
}
