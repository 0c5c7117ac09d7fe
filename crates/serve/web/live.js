// Results that follow the input: after a pause in typing, and never older than what is shown.

import { RequestError } from "./api.js";
import { h, show } from "./dom.js";

const PAUSE_MS = 180;

export class Live {
  /** `run(signal)` computes and shows the result, and returns a sentence for screen readers. */
  constructor(run) {
    this.run = run;
    this.results = h("div", { class: "results" });
    this.error = h("p", { class: "error", role: "alert", hidden: true });
    this.timing = h("p", { class: "timing" });
    this.element = h("div", { class: "output", "aria-busy": "false" }, this.error, this.results, this.timing);
    this.timer = 0;
    this.current = null;
  }

  /** Runs after a pause. */
  changed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.now(), PAUSE_MS);
  }

  /** Runs at once. The previous run, if it has not finished, is cancelled and its result is dropped. */
  async now() {
    clearTimeout(this.timer);
    this.current?.abort();
    const controller = new AbortController();
    this.current = controller;
    this.element.setAttribute("aria-busy", "true");
    const start = performance.now();
    try {
      const said = await this.run(controller.signal);
      if (this.current !== controller) return;
      this.fail(null);
      this.timing.textContent = `${Math.round(performance.now() - start)} ms`;
      if (said) announce(said);
    } catch (error) {
      if (this.current !== controller || error.name === "AbortError") return;
      if (!(error instanceof RequestError)) console.error(error);
      this.fail(error.message);
    }
    this.element.setAttribute("aria-busy", "false");
  }

  /** Shows results, unless newer ones were requested. */
  show(signal, ...children) {
    if (!signal.aborted) show(this.results, ...children);
  }

  fail(message) {
    this.error.hidden = !message;
    this.error.textContent = message ? message.replaceAll(/\s+/g, " ") : "";
    this.element.classList.toggle("stale", Boolean(message));
    if (message) this.timing.textContent = "";
  }

  /** Drops what is running; nothing is shown afterwards. */
  stop() {
    clearTimeout(this.timer);
    this.current?.abort();
    this.current = null;
  }
}

/** Says a sentence to screen readers. */
export function announce(text) {
  document.getElementById("status").textContent = text;
}
