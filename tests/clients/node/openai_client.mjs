// OpenAI's own Node client, unchanged: what it makes of this server's answers, as one line of JSON.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const [url, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const model = "echo";
const messages = [{ role: "user", content: "one two three" }];
const out = {};

out.whole = (await client.chat.completions.create({ model, messages })).choices[0].message.content;
out.streamed = "";
const options = { model, messages, stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create(options)) {
  out.streamed += chunk.choices[0]?.delta?.content ?? "";
  if (chunk.usage) out.tokens = chunk.usage.completion_tokens;
}
out.legacy = (await client.completions.create({ model, prompt: "a b" })).choices[0].text;
out.models = (await client.models.list()).data.map((one) => one.id);

const parameters = { type: "object", properties: { a: { type: "number" }, b: { type: "number" } }, required: ["a", "b"] };
const runner = client.chat.completions.runTools({
  model,
  messages: [{ role: "user", content: "Please add 2 and 3.5" }],
  stream: true,
  tools: [{ type: "function", function: { name: "add", parameters, parse: JSON.parse, function: ({ a, b }) => `${a + b}` } }],
});
out.tool = await runner.finalContent();

const Point = z.object({ x: z.number(), label: z.string() });
const parsed = await client.chat.completions.parse({
  model,
  messages: [{ role: "user", content: 'A point at 7 called "home"' }],
  response_format: zodResponseFormat(Point, "point"),
});
out.parsed = parsed.choices[0].message.parsed;

const embedded = await client.embeddings.create({ model, input: ["a", "b"], dimensions: 4 });
out.embedding = embedded.data.map((one) => one.embedding.length);
out.flagged = (await client.moderations.create({ input: "a forbidden word" })).results[0].flagged;
try {
  await client.chat.completions.create({ model, messages, temperature: 9 });
} catch (error) {
  out.error = [error.status, error.param, error.constructor.name];
}
console.log(JSON.stringify(out));
