// The page: asks the server every few seconds how it is, and draws what it says.

import { get, key, lines, post, send } from "./api.js";
import * as conversation from "./chat.js";
import * as prompts from "./prompts.js";
import { $, bytes, make, meter, parameters, span, toast } from "./dom.js";

const EVERY = 2000;
const state = { status: null, loaded: [], stored: [], names: [], drawn: {}, denied: false };
const ids = (answer) => answer.data.map((model) => model.id);
const list = (answer) => (Array.isArray(answer) ? answer : answer?.models ?? []);

async function refresh() {
  try {
    const [status, loaded, stored, names] = await Promise.all([
      get("/api/dockyard/status"),
      get("/api/dockyard/ps"),
      get("/api/dockyard/models"),
      get("/v1/models"),
    ]);
    Object.assign(state, { status, loaded: list(loaded), stored: list(stored), names: ids(names), denied: false });
    health("up", `running${status.version ? ` · ${status.version}` : ""}`);
    draw();
    await prompts.refresh();
  } catch (error) {
    if (error.status === 401 || error.status === 403) await denied(error);
    else health("down", error.message);
  }
}

// A key that may infer but not manage still gets the chat, with the models the API names.
async function denied(error) {
  health("up", error.status === 401 ? "an API key is needed" : "this key may chat, not manage");
  if (error.status === 403) {
    state.names = await get("/v1/models").then(ids, () => []);
    state.stored = state.loaded = [];
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
once("select", state.names, drawSelect);
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
    make("span", {}, "predicted"), withClass(meter(`${model.reference} predicted memory`, [weights / most, cache / most, workspace / most],
      `weights ${bytes(weights)}, KV cache ${bytes(cache)}, workspace ${bytes(workspace)}`), "predicted"), make("span", {}, bytes(predicted)),
    make("span", {}, "measured"), meter(`${model.reference} measured memory`, [(model.measured ?? 0) / most]),
    make("span", {}, bytes(model.measured)),
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

// What an artifact's config says of its model, read as any registry client reads it: manifest, then config.
const known = new Map();
async function learn(entry) {
  const digest = entry.digest ?? entry.id;
  if (!digest || known.has(digest) || !entry.reference) return;
  known.set(digest, {});
  const repository = entry.reference.replace(/@.*$/, "").replace(/:[^/:]*$/, "").replace(/^docker\.io\//, "");
  try {
    const manifest = await get(`/v2/${repository}/manifests/${digest}`);
    const config = await get(`/v2/${repository}/blobs/${manifest.config.digest}`);
    known.set(digest, facts(manifest, config));
    state.drawn.store = null;
    draw();
  } catch {
    // Not a model, or of a registry that the hub does not show: the card does without.
  }
}

// ModelPack says paramSize, Docker's format says parameters; both put the licence and the files where they like.
function facts(manifest, config) {
  const said = config.config ?? {};
  return {
    format: said.format,
    architecture: said.architecture,
    parameters: said.paramSize ?? said.parameters,
    quantization: said.quantization,
    context: said.context_size,
    licence: config.descriptor?.licenses?.join(", "),
    author: config.descriptor?.authors?.join(", "),
    family: config.descriptor?.family,
    files: manifest.layers.map((layer) =>
      `${layer.annotations?.["org.cncf.model.filepath"] ?? layer.mediaType} (${bytes(layer.size)})`),
  };
}

function drawStore() {
  state.stored.forEach(learn);
  $("store-count").textContent = state.stored.length || "";
  const cards = state.stored.map(storeCard);
  $("store").replaceChildren(...(cards.length ? cards : [make("p.soft", {}, "The store is empty. Pull ", make("code", {}, "smollm2"), " to begin.")]));
}

function storeCard(entry) {
  const digest = entry.digest ?? entry.id;
  const about = known.get(digest) ?? {};
  const name = entry.name ?? entry.reference ?? digest;
  const size = typeof about.parameters === "string" ? `${about.parameters} parameters` : parameters(about.parameters);
  const shown = [about.architecture, size, about.quantization, about.format, about.licence].filter(Boolean);
  const more = [["full name", entry.reference], ["digest", digest], ["family", about.family], ["author", about.author],
    ["context", about.context ? `${about.context} tokens advised` : null], ["files", about.files?.join(", ")],
    ["since", entry.created ? new Date(entry.created * 1000).toLocaleString() : null],
    ["pinned", entry.pinned ? "yes" : null]].filter(([, value]) => value);
  const isLoaded = state.loaded.some((model) => model.digest && model.digest === digest);
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
  const names = state.names;
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
$("key-cancel").addEventListener("click", () => $("key-dialog").close(""));
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
