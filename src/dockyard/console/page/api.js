// The HTTP API as the page uses it: the same requests anybody can make. No key is ever put into a URL.

const KEY = "dockyard-key";

export class ApiError extends Error {
  constructor(status, message, hint, code) {
    super(message);
    this.status = status;
    this.hint = hint;
    this.code = code;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) || "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

// One request; a failure is raised with the server's own words and hint.
export async function send(method, path, body, signal) {
  const headers = {};
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let reply;
  try {
    reply = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "the server can't be reached");
  }
  if (reply.ok) return reply;
  const text = await reply.text();
  let found = {};
  try {
    found = JSON.parse(text).error ?? JSON.parse(text);
  } catch {
    found = { message: text.slice(0, 300) };
  }
  if (typeof found === "string") found = { message: found };
  throw new ApiError(reply.status, found.message || found.detail || `status ${reply.status}`, found.hint, found.code);
}

export async function get(path) {
  return (await send("GET", path)).json();
}

export async function post(path, body) {
  const text = await (await send("POST", path, body)).text();
  return text ? JSON.parse(text) : null;
}

// Whole lines of a body as they arrive.
export async function* lines(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    yield* parts;
  }
  if (rest) yield rest;
}

// The events of a chat completion, one JSON value each.
export async function* chat(body, signal) {
  const reply = await send("POST", "/v1/chat/completions", { ...body, stream: true, stream_options: { include_usage: true } }, signal);
  for await (const line of lines(reply)) {
    if (!line.startsWith("data:")) continue;
    const data = line.slice(5).trim();
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) throw new ApiError(500, event.error.message, event.error.hint, event.error.code);
    yield event;
  }
}
