// One panel for each task: a form, and results that follow it.

import { pipeline } from "./api.js";
import { attentionPanel } from "./attention.js";
import { bar, characters, checkbox, field, h, lines, percent, textarea } from "./dom.js";
import { Live } from "./live.js";

/**
 * The panels in the order of the tabs. `needs`: one of these capabilities. `build(context)` returns `{ element, live }`; the
 * context has the `model` (as in GET /models) and `saved`, where a panel keeps its inputs.
 */
export const PANELS = [
  { id: "fill-mask", title: "Fill mask", needs: ["fill-mask"], build: fillMask },
  { id: "classify", title: "Classify", needs: ["classify", "multi-label", "regress"], build: classify },
  { id: "tag", title: "Tag", needs: ["tag"], build: tag },
  { id: "answer", title: "Answer", needs: ["answer"], build: answer },
  { id: "zero-shot", title: "Zero-shot", needs: ["zero-shot"], build: zeroShot },
  { id: "similarity", title: "Similarity", needs: ["embed", "similarity"], build: similarity },
  { id: "rerank", title: "Rerank", needs: ["rerank"], build: rerank },
  { id: "choose", title: "Choose", needs: ["choose"], build: choose },
  { id: "next-sentence", title: "Next sentence", needs: ["next-sentence"], build: nextSentence },
  { id: "attention", title: "Attention", needs: ["attention"], build: attentionPanel },
  { id: "tokenize", title: "Tokens", needs: null, build: tokens },
];

/** The panels that a model has. */
export function panelsOf(model) {
  const has = new Set(model.capabilities ?? []);
  return PANELS.filter(({ needs }) => !needs || needs.some((need) => has.has(need)));
}

/** A form beside its results. */
function panel(fields, live) {
  const element = h("div", { class: "split" }, h("div", { class: "card form" }, fields), h("div", { class: "card" }, live.element));
  return { element, live };
}

/** A value that survives a change of the panel. */
function kept(context, name, initial) {
  return context.saved[name] ?? initial;
}

/** An area whose text is kept. */
function area(context, name, initial, rows, live) {
  const element = textarea(kept(context, name, initial), rows, () => {
    context.saved[name] = element.value;
    live().changed();
  });
  return element;
}

/** A line of text that is kept. */
function line(context, name, initial, live) {
  const element = h("input", { type: "text", value: kept(context, name, initial), autocomplete: "off" });
  element.addEventListener("input", () => {
    context.saved[name] = element.value;
    live().changed();
  });
  return element;
}

const hint = (text) => h("p", { class: "empty" }, text);

// ------------------------------------------------------------------------------------------------ fill-mask

function fillMask(context) {
  const { model } = context;
  const mask = model.mask_token ?? "[MASK]";
  // Models have different mask tokens.
  if (context.saved.mask && context.saved.text) context.saved.text = context.saved.text.replaceAll(context.saved.mask, mask);
  context.saved.mask = mask;
  const text = area(context, "text", `The capital of France is ${mask}.`, 3, () => live);
  const add = h(
    "button",
    {
      type: "button",
      onclick: () => {
        text.setRangeText(mask, text.selectionStart, text.selectionEnd, "end");
        text.focus();
        text.dispatchEvent(new Event("input"));
      },
    },
    `Insert ${mask}`,
  );
  const live = new Live(async (signal) => {
    const value = text.value;
    const parts = value.split(mask);
    if (parts.length === 1) {
      live.show(signal, hint(`Write ${mask} where a token is to be predicted.`));
      return "";
    }
    const answer = await pipeline(model.id, "fill-mask", { inputs: value, parameters: { top_k: 8 } }, signal);
    // One list for one mask, a list of lists for several.
    const masks = Array.isArray(answer[0]) ? answer : [answer];
    const fill = (number, token) => {
      if (text.value !== value) return;
      text.value = join(parts, (i) => (i === number ? token : mask)).map(([piece]) => piece).join("");
      text.focus();
      text.dispatchEvent(new Event("input"));
    };
    const best = masks.map((candidates) => candidates[0]?.token_str ?? mask);
    const sentence = join(parts, (i) => best[i] ?? mask).map(([piece, filled]) => (filled ? h("mark", { class: "filled" }, piece) : piece));
    const chips = (candidates, number) =>
      h(
        "ul",
        { class: "chips", "aria-label": `Candidates for mask ${number + 1}` },
        candidates.map(({ token_str, score }) =>
          h(
            "li",
            null,
            h(
              "button",
              {
                type: "button",
                class: "chip",
                vars: { "--share": `${(100 * score).toFixed(1)}%` },
                "aria-label": `Fill in ${token_str.trim()}, ${percent(score)}`,
                onclick: () => fill(number, token_str),
              },
              h("span", { class: "chip-text" }, token_str.trim() || "␣"),
              h("span", { class: "chip-value" }, percent(score)),
            ),
          ),
        ),
      );
    live.show(
      signal,
      h("p", { class: "reading" }, sentence),
      masks.map((candidates, number) => [masks.length > 1 && h("h3", null, `Mask ${number + 1}`), chips(candidates, number)]),
    );
    return `Filled in: ${best.map((token) => token.trim()).join(", ")}`;
  });
  return panel([field("Text", text, `with ${mask}`), h("div", { class: "actions" }, add)], live);
}

/** The parts of a text around its masks, with what replaces each: pairs of a piece and whether it is a replacement. */
function join(parts, replacement) {
  const pieces = [];
  parts.forEach((part, i) => {
    pieces.push([part, false]);
    if (i === parts.length - 1) return;
    const token = replacement(i);
    // A piece that continues a word.
    if (token.startsWith("##") && token.length > 2) {
      pieces.at(-1)[0] = part.trimEnd();
      pieces.push([token.slice(2), true]);
    } else pieces.push([token.trim(), true]);
  });
  return pieces;
}

// ------------------------------------------------------------------------------------------------ sequences

/** Bars of `[{label, score}]`. Scores that are not probabilities are shown as numbers. */
function bars(scores) {
  const isProbability = scores.every(({ score }) => score >= 0 && score <= 1);
  const largest = Math.max(...scores.map(({ score }) => Math.abs(score)), 1e-9);
  return scores.map(({ label, score }, i) =>
    bar(label, isProbability ? score : Math.abs(score) / largest, isProbability ? percent(score) : score.toFixed(3), {
      class: i === 0 ? "bar best" : "bar",
    }),
  );
}

const said = (scores) => (scores.length ? `${scores[0].label}, ${percent(scores[0].score)}` : "");

function classify(context) {
  const { model } = context;
  const isValue = model.capabilities.includes("regress");
  const first = area(context, "text", "A quiet film that stays with you for days.", 3, () => live);
  const second = area(context, "pair", "", 2, () => live);
  const live = new Live(async (signal) => {
    if (!first.value.trim()) {
      live.show(signal, hint("Write a text."));
      return "";
    }
    const inputs = second.value.trim() ? { text: first.value, text_pair: second.value } : first.value;
    const answer = await pipeline(model.id, "text-classification", { inputs, parameters: { top_k: 50 } }, signal);
    const scores = Array.isArray(answer[0]) ? answer[0] : answer;
    if (isValue && scores.length === 1) {
      live.show(signal, h("p", { class: "value" }, scores[0].score.toFixed(4)));
      return scores[0].score.toFixed(3);
    }
    live.show(signal, bars(scores));
    return said(scores);
  });
  return panel([field("Text", first), field("Second text", second, "for pairs, optional")], live);
}

function zeroShot(context) {
  const { model } = context;
  const text = area(context, "text", "The new phone's battery lasts two days.", 3, () => live);
  const labels = line(context, "labels", "technology, sport, politics", () => live);
  const template = line(context, "template", "This example is {}.", () => live);
  const several = checkbox("Several labels may be true", kept(context, "several", false), () => {
    context.saved.several = several.box.checked;
    live.changed();
  });
  const live = new Live(async (signal) => {
    const candidate_labels = labels.value.split(",").map((label) => label.trim()).filter((label) => label);
    if (!text.value.trim() || !candidate_labels.length) {
      live.show(signal, hint("Write a text and labels."));
      return "";
    }
    const parameters = { candidate_labels, hypothesis_template: template.value, multi_label: several.box.checked };
    const answer = await pipeline(model.id, "zero-shot-classification", { inputs: text.value, parameters }, signal);
    // Two forms are in use.
    const scores = Array.isArray(answer) ? answer : answer.labels.map((label, i) => ({ label, score: answer.scores[i] }));
    live.show(signal, bars(scores));
    return said(scores);
  });
  return panel(
    [field("Text", text), field("Labels", labels, "separated by commas"), field("Hypothesis", template, "{} is the label"), several.element],
    live,
  );
}

function nextSentence(context) {
  const { model } = context;
  const text = area(context, "text", "She opened the door.", 2, () => live);
  const next = area(context, "next", "The room behind it was dark.", 2, () => live);
  const live = new Live(async (signal) => {
    if (!text.value.trim() || !next.value.trim()) {
      live.show(signal, hint("Write two sentences."));
      return "";
    }
    const { is_next: p } = await pipeline(model.id, "next-sentence", { inputs: { text: text.value, next: next.value } }, signal);
    live.show(signal, bars([{ label: "follows", score: p }, { label: "does not follow", score: 1 - p }]));
    return `Follows: ${percent(p)}`;
  });
  return panel([field("Text", text), field("Next", next)], live);
}

// ------------------------------------------------------------------------------------------------ tokens

/** A colour of the style sheet for each label, in the order of the model's labels where it has any. */
function colours(labels) {
  const known = new Map();
  (labels ?? []).map((label) => label.replace(/^[BIESLU]-/, "")).filter((label) => label !== "O").forEach(colour);
  function colour(label) {
    if (!known.has(label)) known.set(label, known.size % 8);
    return `colour-${known.get(label)}`;
  }
  return colour;
}

function tag(context) {
  const { model } = context;
  const colour = colours(model.labels);
  const text = area(context, "text", "Ada Lovelace met Charles Babbage in London.", 4, () => live);
  const strategy = h(
    "select",
    {
      onchange: () => {
        context.saved.strategy = strategy.value;
        live.changed();
      },
    },
    ["simple", "first", "average", "max", "none"].map((name) => h("option", { value: name }, name)),
  );
  strategy.value = kept(context, "strategy", "simple");
  const live = new Live(async (signal) => {
    if (!text.value.trim()) {
      live.show(signal, hint("Write a text."));
      return "";
    }
    const value = text.value;
    const parameters = { aggregation_strategy: strategy.value };
    const spans = await pipeline(model.id, "token-classification", { inputs: value, parameters }, signal);
    const slice = characters(value);
    const parts = [];
    let done = 0;
    for (const { entity_group, entity, score, start, end } of [...spans].sort((a, b) => a.start - b.start)) {
      const label = entity_group ?? entity;
      if (start < done) continue;
      parts.push(
        slice(done, start),
        h(
          "mark",
          { class: `entity ${colour(label.replace(/^[BIESLU]-/, ""))}`, title: `${label}, ${percent(score)}` },
          slice(start, end),
          h("span", { class: "entity-label" }, label),
        ),
      );
      done = end;
    }
    parts.push(slice(done, undefined));
    const list = spans.map(({ entity_group, entity, word, start, end, score }) =>
      h("tr", null, h("td", null, slice(start, end) || word), h("td", null, entity_group ?? entity), h("td", { class: "number" }, percent(score))),
    );
    live.show(
      signal,
      h("p", { class: "reading entities" }, parts),
      list.length
        ? h("table", { class: "list" }, h("thead", null, h("tr", null, ["Span", "Label", "Score"].map((name) => h("th", { scope: "col", class: name === "Score" ? "number" : undefined }, name)))), h("tbody", null, list))
        : hint("No entities."),
    );
    return `${spans.length} entities`;
  });
  return panel([field("Text", text), field("Aggregation", strategy)], live);
}

function tokens(context) {
  const { model } = context;
  const text = area(context, "text", "Unbelievable tokenizers split words.", 4, () => live);
  const live = new Live(async (signal) => {
    const [pieces] = await pipeline(model.id, "tokenize", { inputs: [text.value] }, signal);
    live.show(
      signal,
      h("p", { class: "count" }, `${pieces.length} tokens`),
      h(
        "ol",
        { class: "pieces" },
        pieces.map(({ id, text: piece, special }) =>
          h("li", { class: special ? "piece special" : "piece" }, h("span", null, piece), h("span", { class: "piece-id" }, String(id))),
        ),
      ),
    );
    return `${pieces.length} tokens`;
  });
  return panel([field("Text", text)], live);
}

// ------------------------------------------------------------------------------------------------ answers

const PASSAGE =
  "The lighthouse on the northern cape was built in 1871 by Anna Holm. It is 43 metres high. Its lamp was lit with rapeseed oil " +
  "until electricity reached the cape in 1932.";

function answer(context) {
  const { model } = context;
  const question = line(context, "question", "Who built the lighthouse?", () => live);
  const passage = area(context, "passage", PASSAGE, 6, () => live);
  const none = checkbox("The passage may have no answer", kept(context, "none", false), () => {
    context.saved.none = none.box.checked;
    live.changed();
  });
  const live = new Live(async (signal) => {
    const text = passage.value;
    if (!question.value.trim() || !text.trim()) {
      live.show(signal, hint("Write a question and a passage."));
      return "";
    }
    const inputs = { question: question.value, context: text };
    const parameters = { top_k: 3, handle_impossible_answer: none.box.checked };
    const found = await pipeline(model.id, "question-answering", { inputs, parameters }, signal);
    const answers = Array.isArray(found) ? found : [found];
    const [best] = answers;
    const slice = characters(text);
    const passageParts = best?.answer ? [slice(0, best.start), h("mark", { class: "filled" }, slice(best.start, best.end)), slice(best.end, undefined)] : [text];
    live.show(
      signal,
      answers.map(({ answer, score }, i) => bar(answer || "no answer", score, percent(score), { class: i === 0 ? "bar best" : "bar" })),
      h("p", { class: "reading passage" }, passageParts),
    );
    return best ? `${best.answer || "no answer"}, ${percent(best.score)}` : "no answer";
  });
  return panel([field("Question", question), field("Passage", passage), none.element], live);
}

function choose(context) {
  const { model } = context;
  const text = area(context, "context", "He put the kettle on the stove and", 3, () => live);
  const endings = area(context, "endings", "waited for the water to boil.\nflew to the moon.\nateliers are bright.", 4, () => live);
  const live = new Live(async (signal) => {
    const all = lines(endings.value);
    if (!text.value.trim() || all.length < 2) {
      live.show(signal, hint("Write a beginning and at least two endings."));
      return "";
    }
    const ranked = await pipeline(model.id, "multiple-choice", { inputs: { context: text.value, endings: all } }, signal);
    const scores = [...ranked].sort((a, b) => b.score - a.score).map(({ index, score }) => ({ label: all[index], score }));
    live.show(signal, bars(scores));
    return said(scores);
  });
  return panel([field("Beginning", text), field("Endings", endings, "one a line")], live);
}

function rerank(context) {
  const { model } = context;
  const query = line(context, "query", "how high is the lighthouse", () => live);
  const texts = area(
    context,
    "texts",
    "The lamp was lit with rapeseed oil.\nThe lighthouse is 43 metres high.\nA harbour lies to the south.\nTickets are sold at the gate.",
    6,
    () => live,
  );
  const live = new Live(async (signal) => {
    const all = lines(texts.value);
    if (!query.value.trim() || !all.length) {
      live.show(signal, hint("Write a query and texts."));
      return "";
    }
    const answer = await pipeline(model.id, "text-ranking", { inputs: { query: query.value, texts: all } }, signal);
    const ranked = [...answer].sort((a, b) => b.score - a.score);
    const [low, high] = [Math.min(...ranked.map(({ score }) => score), 0), Math.max(...ranked.map(({ score }) => score), 1e-9)];
    live.show(
      signal,
      h(
        "ol",
        { class: "ranked" },
        ranked.map(({ index, score }, rank) =>
          h(
            "li",
            null,
            h("span", { class: "rank", title: `line ${index + 1}` }, String(rank + 1)),
            bar(all[index], (score - low) / (high - low), score.toFixed(3), { class: rank === 0 ? "bar best tall" : "bar tall" }),
          ),
        ),
      ),
    );
    return `Best: ${all[ranked[0].index]}`;
  });
  return panel([field("Query", query), field("Texts", texts, "one a line")], live);
}

// ------------------------------------------------------------------------------------------------ similarity

const SENTENCES = "A man is playing a guitar.\nSomeone plays an instrument.\nThe stock market fell today.\nShares lost value.\nA cat sleeps on the sofa.";

function similarity(context) {
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
    const [lowest, highest] = range(cosines);
    const share = (value) => (highest > lowest ? (value - lowest) / (highest - lowest) : 0);
    const cell = (value, i, j) => {
      const shade = i === j ? 0 : share(value);
      return h("td", { class: i === j ? "heat self" : "heat", vars: { "--heat": `${(4 + 51 * shade).toFixed(0)}%` }, title: `${i + 1} and ${j + 1}: ${value.toFixed(4)}` }, value.toFixed(2));
    };
    const rows = all.map((sentence, i) =>
      h("tr", null, h("th", { scope: "row" }, h("span", { class: "rank" }, String(i + 1)), h("span", { class: "sentence", title: sentence }, sentence)), cosines[i].map((value, j) => cell(value, i, j))),
    );
    let best = [0, 1];
    for (let i = 0; i < all.length; i++) for (let j = i + 1; j < all.length; j++) if (cosines[i][j] > cosines[best[0]][best[1]]) best = [i, j];
    live.show(
      signal,
      h(
        "div",
        { class: "scroll" },
        h(
          "table",
          { class: "matrix" },
          h("caption", null, "Cosine similarity"),
          h("thead", null, h("tr", null, h("td"), all.map((_, i) => h("th", { scope: "col" }, String(i + 1))))),
          h("tbody", null, rows),
        ),
      ),
      h("p", { class: "count" }, `Most similar: ${best[0] + 1} and ${best[1] + 1} (${cosines[best[0]][best[1]].toFixed(3)}) · ${vectors[0].length} dimensions`),
    );
    return `Most similar: sentences ${best[0] + 1} and ${best[1] + 1}`;
  });
  return panel([field("Sentences", text, "one a line")], live);
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
