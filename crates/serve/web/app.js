// The playground: a model, its tasks, and the panel of one of them. The hash of the address names both.

import { request } from "./api.js";
import { h, roving, show, skipLink } from "./dom.js";
import { panelsOf } from "./panels.js";

const picker = document.getElementById("model");
const facts = document.getElementById("facts");
const tabs = document.getElementById("tasks");
const place = document.getElementById("panel");

let models = [];
let open = { model: null, task: null, live: null };
/** The inputs of each task, which stay when the model changes. */
const saved = new Map();

async function start() {
  try {
    models = (await request("models")).data ?? [];
  } catch (error) {
    fail(error.message);
    return;
  }
  if (!models.length) {
    fail("The server has no models.");
    return;
  }
  show(picker, models.map(({ id }) => h("option", { value: id }, id)));
  picker.addEventListener("change", () => go(picker.value, open.task));
  addEventListener("hashchange", follow);
  follow();
  // Only a server that was started with runs has them.
  request("runs.json").then(
    ({ enabled }) => (document.getElementById("runs-link").hidden = !enabled),
    () => {},
  );
}

function fail(message) {
  show(place, h("p", { class: "error", role: "alert" }, message));
}

/** Opens what the hash names, or the nearest to it. */
function follow() {
  const named = new URLSearchParams(location.hash.slice(1));
  const model = models.find(({ id }) => id === named.get("model")) ?? models[0];
  const panels = panelsOf(model);
  const panel = panels.find(({ id }) => id === named.get("task")) ?? panels[0];
  if (open.model === model && open.task === panel.id) return;
  open.live?.stop();
  const keepsFocus = tabs.contains(document.activeElement);
  picker.value = model.id;
  facts.textContent = [model.layers && `${model.layers} layers`, model.dtype, model.labels?.length > 1 && `${model.labels.length} labels`].filter(Boolean).join(" · ");
  const buttons = panels.map(({ id, title }) =>
    h(
      "button",
      {
        type: "button",
        role: "tab",
        id: `tab-${id}`,
        "aria-selected": String(id === panel.id),
        "aria-controls": "panel",
        tabindex: id === panel.id ? "0" : "-1",
        onclick: () => go(model.id, id),
      },
      title,
    ),
  );
  show(tabs, buttons);
  tabs.onkeydown = roving(buttons, buttons.length, (at) => go(model.id, panels[at].id));
  const current = buttons[panels.indexOf(panel)];
  if (keepsFocus) current.focus();
  current.scrollIntoView({ block: "nearest", inline: "nearest" });
  place.setAttribute("aria-labelledby", current.id);
  document.title = `${panel.title} · ${model.id} · Cloze`;
  if (!saved.has(panel.id)) saved.set(panel.id, {});
  const { element, live } = panel.build({ model, saved: saved.get(panel.id) });
  open = { model, task: panel.id, live };
  show(place, element);
  place.querySelectorAll("textarea").forEach((area) => area.fit());
  live.now();
}

function go(model, task) {
  location.hash = new URLSearchParams({ model, task });
}

skipLink();
start();
