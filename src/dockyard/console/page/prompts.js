// The library of prompts: what there is, what one says, which version counts, and which one the chat is put into.

import { get, post } from "./api.js";
import { $, make, toast } from "./dom.js";

let drawn = "";

export async function refresh() {
  let rows;
  try {
    rows = (await get("/api/dockyard/prompts")).prompts;
  } catch {
    rows = []; // a key that may not ask sees none
  }
  const text = JSON.stringify(rows);
  if (text === drawn) return;
  drawn = text;
  $("prompts-count").textContent = rows.length || "";
  $("prompts").replaceChildren(
    ...(rows.length ? rows.map(card) : [make("p.soft", {}, "No prompts. ", make("code", {}, "dockyard prompt create"), " keeps one.")]),
  );
  const chosen = $("use-prompt").value;
  const usable = rows.filter((row) => !row.error);
  $("use-prompt").replaceChildren(
    make("option", { value: "" }, "none"),
    ...usable.map((row) => make("option", { value: row.name }, row.name)),
  );
  if (usable.some((row) => row.name === chosen)) $("use-prompt").value = chosen;
}

// The chat's field for the prompt that is chosen; throws where the variables can't be read.
export function chosen() {
  const id = $("use-prompt").value;
  if (!id) return {};
  const variables = {};
  for (const line of $("prompt-variables").value.split("\n").filter((one) => one.trim())) {
    const at = line.indexOf("=");
    if (at < 1) throw new Error(`Variables read name=value, a line each: ${line}`);
    variables[line.slice(0, at).trim()] = line.slice(at + 1).trim();
  }
  return { dockyard: { prompt: { id, variables } } };
}

function card(row) {
  if (row.error) return make("article.card", { "aria-label": row.name }, make("h3", {}, row.name), make("p.soft", {}, row.error));
  const text = make("pre", { tabindex: 0, "aria-label": `text of ${row.name}` });
  const details = make("details", {}, make("summary", {}, "Text"), text);
  details.addEventListener("toggle", () => details.open && show(row.name, text));
  const older = row.versions.filter((one) => !one.current);
  return make(
    "article.card", { "aria-label": row.name },
    make("div.row", {}, make("h3", {}, row.name), make("span.soft", {}, row.version)),
    row.description ? make("p.soft", {}, row.description) : null,
    row.variables.length ? make("p.soft", {}, `variables: ${row.variables.join(", ")}`) : null,
    details,
    make(
      "div.actions", {},
      make("button.small", { type: "button", onclick: () => use(row.name) }, "Use"),
      ...older.slice(-3).map((one) =>
        make("button.quiet.small", { type: "button", onclick: () => back(row.name, one.version) }, `Make ${one.version} current`)),
    ),
  );
}

async function show(name, element) {
  try {
    element.textContent = (await get(`/api/dockyard/prompts/${name.split("/").map(encodeURIComponent).join("/")}`)).text;
  } catch (error) {
    toast(error);
  }
}

function use(name) {
  $("use-prompt").value = name;
  $("options").open = true;
  $("prompt-variables").focus();
}

async function back(name, to) {
  await post("/api/dockyard/prompts/rollback", { name, to }).catch(toast);
  refresh();
}
