// Requests to the server. The key, if one is needed, is kept for this tab only.

import { h } from "./dom.js";

const KEY = "cloze-key";

/** An error that the server or the network reported, in one line. */
export class RequestError extends Error {}

let asking = null;

/** GET without a body, POST with one. Returns the parsed answer. */
export async function request(path, body, signal) {
  for (;;) {
    const used = sessionStorage.getItem(KEY);
    const headers = used ? { Authorization: `Bearer ${used}` } : {};
    const options = { headers, signal };
    if (body !== undefined) {
      headers["Content-Type"] = "application/json";
      Object.assign(options, { method: "POST", body: JSON.stringify(body) });
    }
    let response;
    try {
      response = await fetch(path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new RequestError("The server does not answer.");
    }
    if (response.status === 401) {
      // Requests that failed together ask once.
      if (sessionStorage.getItem(KEY) === used) {
        asking ??= askForKey(used).finally(() => (asking = null));
        await asking;
      }
      continue;
    }
    const text = await response.text();
    let answer;
    try {
      answer = JSON.parse(text);
    } catch {
      if (response.ok) throw new RequestError("The server's answer is not JSON.");
    }
    if (response.ok) return answer;
    const error = answer?.error ?? answer?.detail ?? text;
    const message = typeof error === "string" ? error : error?.message;
    throw new RequestError(message?.trim() || `The server answered ${response.status}.`);
  }
}

/** Asks for the key until one is given. */
function askForKey(rejected) {
  return new Promise((resolve, reject) => {
    const input = h("input", { id: "key", type: "password", autocomplete: "current-password", required: true });
    const dialog = h(
      "dialog",
      { class: "card", "aria-labelledby": "key-title" },
      h(
        "form",
        { method: "dialog" },
        h("h2", { id: "key-title" }, "API key"),
        h("p", null, rejected ? "The server does not accept this key." : "This server needs a key. It is kept for this tab only."),
        h("label", { for: "key" }, "Key"),
        input,
        h("button", { class: "primary", type: "submit" }, "Continue"),
      ),
    );
    let given = false;
    dialog.querySelector("form").addEventListener("submit", () => {
      given = true;
      sessionStorage.setItem(KEY, input.value.trim());
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (given) resolve();
      else reject(new RequestError("This server needs a key: reload the page to give it."));
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Runs a task of a model with Hugging Face's payload. */
export function pipeline(model, task, payload, signal) {
  return request(`models/${encodeURIComponent(model)}/pipeline/${task}`, payload, signal);
}
