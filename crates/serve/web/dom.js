// Elements. All text becomes text nodes, so nothing that a model or a user writes is read as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `props`: attributes; `onX` listeners; `vars`, custom properties for the style sheet. */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** An SVG element. */
export function s(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "vars") for (const [key, v] of Object.entries(value)) element.style.setProperty(key, v);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

/** Replaces the contents of an element. */
export function show(element, ...children) {
  const all = document.createDocumentFragment();
  for (const child of children.flat(Infinity)) if (child !== undefined && child !== null && child !== false) all.append(child);
  element.replaceChildren(all);
}

let fields = 0;

/** A labelled control: `field("Text", h("textarea"))`. */
export function field(label, control, hint) {
  control.id ||= `field-${++fields}`;
  return h("div", { class: "field" }, h("label", { for: control.id }, label, hint && h("span", { class: "hint" }, ` ${hint}`)), control);
}

/** A checkbox with its label. */
export function checkbox(label, checked, onchange) {
  const box = h("input", { type: "checkbox", onchange });
  box.checked = checked;
  return { box, element: h("label", { class: "check" }, box, label) };
}

/** A text with several lines that grows with its contents. */
export function textarea(value, rows, oninput) {
  const area = h("textarea", { rows, spellcheck: "false", value });
  const fit = () => {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + 2}px`;
  };
  area.addEventListener("input", () => {
    fit();
    oninput();
  });
  // After it is in the page.
  queueMicrotask(() => area.isConnected && fit());
  area.fit = fit;
  return area;
}

/** Handles arrow keys, Home and End in a list of elements of which one is in the tab order. */
export function roving(elements, columns, select) {
  const keys = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
  return (event) => {
    const at = elements.indexOf(event.target);
    if (at < 0) return;
    let to = at;
    if (event.key in keys) to = at + keys[event.key];
    else if (event.key === "Home") to = event.ctrlKey ? 0 : at - (at % columns);
    else if (event.key === "End") to = event.ctrlKey ? elements.length - 1 : at - (at % columns) + columns - 1;
    else return;
    event.preventDefault();
    to = Math.min(Math.max(to, 0), elements.length - 1);
    // Left and right stay in the row of a grid.
    const moves = event.key === "ArrowRight" || event.key === "ArrowLeft";
    if (moves && columns < elements.length && Math.floor(to / columns) !== Math.floor(at / columns)) return;
    if ((event.key === "ArrowDown" || event.key === "ArrowUp") && to % columns !== at % columns) return;
    elements[to].focus();
    select(to);
  };
}

/** 0.8312 as "83.1 %". */
export function percent(p) {
  if (!Number.isFinite(p)) return "–";
  const value = 100 * p;
  if (value > 0 && value < 0.05) return "<0.1 %";
  return `${value >= 99.95 || value < 0.05 ? value.toFixed(0) : value.toFixed(1)} %`;
}

/** A row with a name, a bar and a value. `share` is the bar's length, 0 to 1. */
export function bar(name, share, value, props) {
  const width = `${(100 * Math.min(Math.max(share, 0), 1)).toFixed(1)}%`;
  return h(
    "div",
    { class: "bar", ...props },
    h("span", { class: "bar-name" }, name),
    h("span", { class: "bar-track" }, h("span", { class: "bar-fill", vars: { "--share": width } })),
    h("span", { class: "bar-value" }, value),
  );
}

/** Parts of a text between offsets in characters (code points), as APIs count them. */
export function characters(text) {
  const all = Array.from(text);
  return (start, end) => all.slice(start, end).join("");
}

/** The lines of a text that are not empty. */
export function lines(text) {
  return text.split("\n").map((line) => line.trim()).filter((line) => line);
}

/** Lets the page's link "Skip to …" move the focus without changing the hash, which names what is open. */
export function skipLink() {
  const link = document.querySelector(".skip");
  link.addEventListener("click", (event) => {
    event.preventDefault();
    document.querySelector(link.hash).focus();
  });
}
