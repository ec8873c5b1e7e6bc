// The page: asks the server every few seconds how it is, and draws what it says.

import { get, key, lines, post, send } from "./api.js";
import * as conversation from "./chat.js";
import { $, bytes, make, meter, parameters, span, toast } from "./dom.js";

const EVERY = 2000;
const state = { status: null, loaded: [], stored: [], drawn: {}, denied: false };
const list = (answer) => (Array.isArray(answer) ? answer : answer?.models ?? []);

async function refresh() {
  try {
    const [status, loaded, stored] = await Promise.all([
      get("/api/dockyard/status"),
      get("/api/dockyard/ps"),
      get("/api/dockyard/models"),
    ]);
    Object.assign(state, { status, loaded: list(loaded), stored: list(stored), denied: false });
    health("up", `running${status.version ? ` · ${status.version}` : ""}`);
    draw();
  } catch (error) {
    if (error.status === 401 || error.status === 403) await denied(error);
    else health("down", error.message);
  }
}

// A key that may infer but not manage still gets the chat, with the models the API names.
async function denied(error) {
  health("up", error.status === 401 ? "an API key is needed" : "this key may chat, not manage");
  if (error.status === 403) {
    const models = await get("/v1/models").catch(() => ({ data: [] }));
    state.stored = models.data.map((model) => ({ reference: model.id }));
    state.loaded = [];
    draw();
  } else if (!state.denied) {
    state.denied = true;
    askForKey(key.get() ? "This key is not known to the server." : undefined);
  }
}

function health(kind, text) {
  $("health").className = kind;
  if ($("health-text").textContent !== text) $("health-text").textContent = text;
}

function draw() {
  once("machine", state.status, drawMachine);
  once("loaded", [state.loaded, Math.floor(Date.now() / 10000)], drawLoaded);
  once("store", [state.stored, state.loaded.map((model) => [model.digest, model.state])], drawStore);
  once("select", [state.stored, state.loaded.map((model) => model.reference)], drawSelect);
}

// Draws only what changed, so that a reader's place, focus and selection survive.
function once(name, data, drawing) {
  const text = JSON.stringify(data);
  if (state.drawn[name] === text) return;
  state.drawn[name] = text;
  drawing();
}

function drawMachine() {
  const machine = state.status?.machine ?? state.status?.hardware;
  const total = machine?.memory_total;
  if (!total) return;
  const used = total - (machine.memory_available ?? 0);
  $("machine").hidden = false;
  $("machine-text").textContent = `${machine.cores ? `${machine.cores} cores · ` : ""}${bytes(used)} of ${bytes(total)} in use`;
  $("machine-meter").firstElementChild.style.width = `${(used / total) * 100}%`;
  $("machine-meter").setAttribute("aria-valuenow", Math.round((used / total) * 100));
}

function drawLoaded() {
  $("loaded-count").textContent = state.loaded.length || "";
  const cards = state.loaded.map(loadedCard);
  $("loaded").replaceChildren(...(cards.length ? cards : [make("p.soft", {}, "No model is in memory. A request loads the one it names.")]));
}

function loadedCard(model) {
  const { weights = 0, kv_cache: cache = 0, workspace = 0 } = model.predicted ?? {};
  const predicted = weights + cache + workspace;
  const most = Math.max(predicted, model.measured ?? 0, 1);
  const bars = make(
    "div.bars", {},
    "predicted", withClass(meter(`${model.reference} predicted memory`, [weights / most, cache / most, workspace / most],
      `weights ${bytes(weights)}, KV cache ${bytes(cache)}, workspace ${bytes(workspace)}`), "predicted"), bytes(predicted),
    "measured", meter(`${model.reference} measured memory`, [(model.measured ?? 0) / most]), bytes(model.measured),
  );
  const told = [`${model.engine}`, `${model.active ?? 0} of ${model.parallel} requests`, `${model.context} tokens each`];
  if (model.queued) told.push(`${model.queued} waiting`);
  if (model.expires_at) told.push(`unloads in ${span(model.expires_at - Date.now() / 1000)}`);
  if (model.restarts) told.push(`${model.restarts} restarts`);
  return make(
    "article.card", { "aria-label": `${model.reference}, ${model.state}` },
    make("div.row", {}, make("h3", {}, short(model.reference)), make(`span.state.${model.state}`, {}, model.state)),
    predicted || model.measured ? bars : null,
    make("p.soft", {}, told.join(" · ")),
    model.reason ? make("p.soft", {}, model.reason) : null,
    make("div.actions", {}, make("button.quiet.small", { type: "button", onclick: () => unload(model.reference) }, "Unload")),
  );
}

function withClass(element, name) {
  element.classList.add(name);
  return element;
}

function drawStore() {
  $("store-count").textContent = state.stored.length || "";
  const cards = state.stored.map(storeCard);
  $("store").replaceChildren(...(cards.length ? cards : [make("p.soft", {}, "The store is empty. Pull ", make("code", {}, "smollm2"), " to begin.")]));
}

function storeCard(entry) {
  const facts = entry.facts ?? entry.config ?? {};
  const name = entry.name ?? entry.reference ?? entry.tags?.[0] ?? entry.id;
  const shown = [facts.format, facts.architecture, parameters(facts.parameters), facts.quantization,
    facts.context ? `${facts.context} tokens` : null, facts.licence].filter(Boolean);
  const more = [["digest", entry.digest ?? entry.id], ["layers", facts.layers], ["width", facts.embedding],
    ["heads", facts.heads && facts.kv_heads ? `${facts.heads} (${facts.kv_heads} for keys and values)` : facts.heads],
    ["attention", facts.attention], ["positions", facts.positional], ["feed-forward", facts.feed_forward],
    ["vocabulary", facts.vocabulary], ["weights", facts.weight_bytes ? bytes(facts.weight_bytes) : null],
    ["named", entry.reference], ["pinned", entry.pinned ? "yes" : null]].filter(([, value]) => value);
  const isLoaded = state.loaded.some((model) => model.digest && model.digest === (entry.digest ?? entry.id));
  return make(
    "article.card", { "aria-label": name },
    make("div.row", {}, make("h3", {}, short(name)), make("span.soft", {}, entry.size ? bytes(entry.size) : "")),
    shown.length ? make("div.facts", {}, ...shown.map((fact) => make("span.fact", {}, String(fact)))) : null,
    more.length ? make("details", {}, make("summary", {}, "Facts"),
      make("dl", {}, ...more.flatMap(([term, value]) => [make("dt", {}, term), make("dd", {}, String(value))]))) : null,
    make("div.actions", {},
      make("button.small", { type: "button", onclick: () => choose(name) }, "Chat"),
      isLoaded ? null : make("button.quiet.small", { type: "button", onclick: (event) => load(event.target, name) }, "Load")),
  );
}

function drawSelect() {
  const names = [...new Set([...state.stored.map((entry) => entry.name ?? entry.reference ?? entry.tags?.[0]),
    ...state.loaded.map((model) => model.reference)].filter(Boolean).map(short))];
  const chosen = $("model").value;
  $("model").replaceChildren(...names.map((name) => make("option", { value: name }, name)));
  if (names.includes(chosen)) $("model").value = chosen;
}

function choose(name) {
  $("model").value = short(name);
  $("prompt").focus();
}

// docker.io/ai/smollm2:latest is smollm2, to people.
function short(name) {
  return String(name).replace(/^docker\.io\/(ai\/(?=[^/]+$))?/, "").replace(/:latest$/, "");
}

async function load(button, name) {
  button.disabled = true;
  button.textContent = "Loading…";
  await post("/api/dockyard/load", { model: short(name) }).catch(toast);
  state.drawn = {};
  refresh();
}

async function unload(name) {
  await post("/api/dockyard/unload", { model: name }).catch(toast);
  refresh();
}

async function pull(event) {
  event.preventDefault();
  const name = $("pull-name").value.trim();
  const items = new Map();
  const title = make("span", {}, `Pulling ${name}…`);
  const bar = meter(`Progress of ${name}`, [0]);
  $("pull-state").replaceChildren(title, bar);
  $("pull-state").hidden = false;
  $("pull-form").querySelector("button").disabled = true;
  try {
    for await (const line of lines(await send("POST", "/api/dockyard/pull", { model: name }))) {
      if (!line.trim()) continue;
      const news = JSON.parse(line);
      if (news.error) throw Object.assign(new Error(news.error.message), { hint: news.error.hint });
      if (news.message) title.textContent = news.message;
      if (news.item) items.set(news.item, news);
      const total = sum(items, "total");
      if (total) {
        const share = sum(items, "current") / total;
        bar.querySelector("i").style.width = `${share * 100}%`;
        bar.setAttribute("aria-valuenow", Math.round(share * 100));
        title.textContent = `Pulling ${name}: ${bytes(share * total)} of ${bytes(total)}`;
      }
    }
    title.textContent = `${name} is in the store.`;
    bar.remove();
    $("pull-name").value = "";
  } catch (error) {
    title.textContent = error.message + (error.hint ? ` – ${error.hint}` : "");
    bar.remove();
  } finally {
    $("pull-form").querySelector("button").disabled = false;
    refresh();
  }
}

const sum = (items, field) => [...items.values()].reduce((total, news) => total + (news[field] ?? 0), 0);

function askForKey(text) {
  if ($("key-dialog").open) return;
  if (text) $("key-text").textContent = text;
  $("key").value = key.get();
  $("key-dialog").showModal();
}

$("key-button").addEventListener("click", () => askForKey());
$("key-dialog").addEventListener("close", () => {
  if ($("key-dialog").returnValue !== "save") return;
  key.set($("key").value.trim());
  state.denied = false;
  refresh();
});
$("pull-form").addEventListener("submit", pull);
conversation.start(refresh, () => askForKey());
$("prompt").focus();

await refresh();
setInterval(() => document.hidden || refresh(), EVERY);
document.addEventListener("visibilitychange", () => document.hidden || refresh());
