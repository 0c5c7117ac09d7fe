// What the forms of the panels share.

import { h, textarea } from "./dom.js";

/** A form beside its results. */
export function panel(fields, live) {
  const element = h("div", { class: "split" }, h("div", { class: "card form" }, fields), h("div", { class: "card" }, live.element));
  return { element, live };
}

/** A value that survives a change of the panel. */
export function kept(context, name, initial) {
  return context.saved[name] ?? initial;
}

/** An area whose text is kept. */
export function area(context, name, initial, rows, live) {
  const element = textarea(kept(context, name, initial), rows, () => {
    context.saved[name] = element.value;
    live().changed();
  });
  return element;
}

/** A line of text that is kept. */
export function line(context, name, initial, live) {
  const element = h("input", { type: "text", value: kept(context, name, initial), autocomplete: "off" });
  element.addEventListener("input", () => {
    context.saved[name] = element.value;
    live().changed();
  });
  return element;
}

/** What is to be written before there is a result. */
export const hint = (text) => h("p", { class: "empty" }, text);
