// One panel for each task: a form, and results that follow it.

import { pipeline, request } from "./api.js";
import { attentionPanel } from "./attention.js";
import { bar, characters, checkbox, field, h, lines, percent } from "./dom.js";
import { area, hint, kept, line, panel } from "./form.js";
import { Live } from "./live.js";
import { similarity, tokenVectors } from "./vectors.js";

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
  { id: "token-vectors", title: "Token vectors", needs: ["token-embed"], build: tokenVectors },
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
  const ids = area(context, "ids", "", 2, () => back);
  const special = checkbox("With special tokens", kept(context, "special", false), () => {
    context.saved.special = special.box.checked;
    back.changed();
  });
  const live = new Live(async (signal) => {
    const value = text.value;
    const [pieces] = await pipeline(model.id, "tokenize", { inputs: [value] }, signal);
    const slice = characters(value);
    const row = ({ id, text: piece, special, start, stop }, at) =>
      h(
        "tr",
        { class: special ? "special" : undefined },
        h("td", { class: "number" }, String(at)),
        h("td", { class: "number" }, String(id)),
        h("td", null, piece),
        h("td", { class: "number" }, special ? "–" : `${start}–${stop}`),
        h("td", { class: "reading" }, special ? "" : slice(start, stop)),
      );
    live.show(
      signal,
      h("p", { class: "count" }, `${pieces.length} tokens · ${Array.from(value).length} characters`),
      h(
        "ol",
        { class: "pieces" },
        pieces.map(({ id, text: piece, special }) =>
          h("li", { class: special ? "piece special" : "piece" }, h("span", null, piece), h("span", { class: "piece-id" }, String(id))),
        ),
      ),
      h(
        "details",
        null,
        h("summary", null, "Offsets"),
        h(
          "div",
          { class: "scroll" },
          h(
            "table",
            { class: "list" },
            h("thead", null, h("tr", null, ["#", "Id", "Piece", "Characters", "Text"].map((name) => h("th", { scope: "col", class: ["Piece", "Text"].includes(name) ? undefined : "number" }, name)))),
            h("tbody", null, pieces.map(row)),
          ),
        ),
      ),
    );
    // What was written into the ids stays until the text changes.
    if (context.saved.of !== value || !ids.value) {
      context.saved.of = value;
      ids.value = pieces.map(({ id }) => id).join(" ");
      context.saved.ids = ids.value;
      ids.fit();
    }
    back.changed();
    return `${pieces.length} tokens`;
  });
  const back = new Live(async (signal) => {
    const given = ids.value.split(/[\s,]+/).filter((id) => id);
    if (!given.length) {
      back.show(signal, hint("Write ids of tokens."));
      return "";
    }
    const wrong = given.find((id) => !/^\d+$/.test(id));
    if (wrong) {
      back.show(signal, hint(`${wrong} is not an id: expected whole numbers, separated by spaces or commas.`));
      return "";
    }
    const [decoded] = await request("decode", { ids: given.map(Number), model: model.id, skip_special_tokens: !special.box.checked }, signal);
    back.show(signal, h("p", { class: "reading decoded" }, decoded));
    return `Decoded: ${decoded}`;
  });
  const element = h(
    "div",
    { class: "split" },
    h("div", { class: "card form" }, field("Text", text), field("Ids", ids, "decoded below"), special.element),
    h("div", { class: "card" }, live.element, h("h3", null, "Decoded"), back.element),
  );
  const both = { now: () => live.now(), stop: () => [live, back].forEach((one) => one.stop()) };
  return { element, live: both };
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
