// The conversation: sends the turns so far, shows the answer as it comes, stops when asked.

import { chat } from "./api.js";
import { $, make, toast } from "./dom.js";
import { chosen } from "./prompts.js";

const turns = [];
let running = null;

export function start(onChange, onDenied) {
  $("chat-form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask(onChange, onDenied);
  });
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      $("chat-form").requestSubmit();
    }
  });
  $("stop").addEventListener("click", () => running?.abort());
  $("clear").addEventListener("click", () => {
    running?.abort();
    turns.length = 0;
    $("log").replaceChildren($("empty"));
    $("empty").hidden = false;
    $("prompt").focus();
  });
}

async function ask(onChange, onDenied) {
  const text = $("prompt").value.trim();
  const model = $("model").value;
  if (!text || running) return;
  if (!model) return toast(new Error("There is no model to ask. Pull one first."));
  $("prompt").value = "";
  $("empty").hidden = true;
  const question = { role: "user", content: text };
  bubble("user", text);
  const answer = bubble("assistant", "");
  answer.text.classList.add("waiting");
  running = new AbortController();
  busy(true);
  const began = performance.now();
  const seen = { text: "", thought: "", first: null, usage: null, finish: null };
  try {
    for await (const event of chat(request(model, question), running.signal)) take(event, seen, answer, began);
    finished(answer, seen, began);
  } catch (error) {
    if (error.name === "AbortError") finished(answer, { ...seen, finish: "stopped" }, began);
    else failed(answer, error, onDenied);
  } finally {
    if (seen.text) turns.push(question, { role: "assistant", content: seen.text });
    answer.text.classList.remove("waiting");
    running = null;
    busy(false);
    onChange();
  }
}

function request(model, question) {
  const system = $("system").value.trim();
  const body = { model, messages: [...(system ? [{ role: "system", content: system }] : []), ...turns, question], ...chosen() };
  for (const [field, id] of [["temperature", "temperature"], ["max_tokens", "max-tokens"], ["seed", "seed"]]) {
    if ($(id).value !== "") body[field] = Number($(id).value);
  }
  return body;
}

function take(event, seen, answer, began) {
  const choice = event.choices?.[0];
  const delta = choice?.delta ?? {};
  seen.usage = event.usage ?? seen.usage;
  seen.finish = choice?.finish_reason ?? seen.finish;
  if (!delta.content && !delta.reasoning_content) return;
  seen.first ??= performance.now() - began;
  const below = atBottom();
  if (delta.reasoning_content) {
    seen.thought += delta.reasoning_content;
    answer.thought.hidden = false;
    answer.thought.textContent = seen.thought;
  }
  if (delta.content) {
    seen.text += delta.content;
    answer.text.textContent = seen.text;
  }
  if (below) toBottom();
}

function finished(answer, seen, began) {
  answer.text.replaceChildren(...blocks(seen.text));
  const seconds = (performance.now() - began) / 1000;
  const told = [];
  if (seen.finish === "stopped") told.push("stopped");
  if (seen.finish === "length") told.push("cut at the token limit");
  if (seen.usage) told.push(`${seen.usage.prompt_tokens} tokens in, ${seen.usage.completion_tokens} out`);
  if (seen.first !== null) told.push(`first after ${Math.round(seen.first)} ms`);
  const decoding = seconds - (seen.first ?? 0) / 1000;
  if (seen.usage?.completion_tokens > 1 && decoding > 0) {
    told.push(`${((seen.usage.completion_tokens - 1) / decoding).toFixed(1)} tokens/s`);
  }
  answer.note.textContent = told.join(" · ");
  toBottom();
}

function failed(answer, error, onDenied) {
  answer.turn.classList.add("error");
  answer.text.textContent = error.message;
  answer.note.textContent = error.hint ?? "";
  if (error.status === 401) onDenied();
}

function bubble(role, text) {
  const thought = make("div.thought", { hidden: true });
  const body = make("div.text", {}, ...blocks(text));
  const note = make("div.soft");
  const who = make("span.hidden", {}, role === "user" ? "You: " : "Answer: ");
  const turn = make(`div.turn.${role}`, {}, who, thought, body, note);
  $("log").append(turn);
  toBottom();
  return { turn, thought, text: body, note };
}

// Fenced code becomes a block of its own; everything else stays text.
function blocks(text) {
  const parts = text.split(/^```[^\n]*\n?/m).map((part, at) => (at % 2 ? code(part) : part));
  return parts.filter((part) => part);
}

const code = (text) => text.trim() && make("pre", { tabindex: 0, "aria-label": "code" }, make("code", {}, text));

function busy(is) {
  $("send").hidden = is;
  $("stop").hidden = !is;
  if (!is) $("prompt").focus();
}

const atBottom = () => $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < 60;
const toBottom = () => ($("log").scrollTop = $("log").scrollHeight);
