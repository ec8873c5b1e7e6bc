// The Vercel AI SDK with its provider for OpenAI-compatible servers: text, streams, tools, objects, embeddings.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [url, apiKey] = process.argv.slice(2);
const provider = createOpenAICompatible({
  name: "dockyard", baseURL: `${url}/v1`, apiKey, includeUsage: true, supportsStructuredOutputs: true,
});
const model = provider("echo");
const out = {};

const whole = await generateText({ model, prompt: "one two three", maxRetries: 0 });
out.whole = [whole.text, whole.finishReason, whole.usage.outputTokens];

const stream = streamText({ model, prompt: "one two three", maxRetries: 0 });
out.streamed = "";
for await (const piece of stream.textStream) out.streamed += piece;
out.tokens = (await stream.usage).outputTokens;

const tools = {
  getWeather: tool({
    description: "The weather in a city",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `sunny in ${city}`,
  }),
};
const asked = { model, tools, prompt: 'What is the weather in "Oslo"?', stopWhen: stepCountIs(3), maxRetries: 0 };
const acted = await generateText(asked);
out.tool = [acted.steps.length, acted.text];
const live = streamText(asked);
const kinds = new Set();
for await (const part of live.fullStream) kinds.add(part.type);
out.streamedTool = [await live.text, ["tool-call", "tool-result", "finish"].every((kind) => kinds.has(kind))];

const schema = z.object({ x: z.number(), label: z.string() });
out.object = (await generateObject({ model, schema, prompt: 'A point at 7 called "home"', maxRetries: 0 })).object;

const thought = await generateText({
  model, prompt: "a b", maxRetries: 0, providerOptions: { dockyard: { reasoningEffort: "low" } },
});
out.reasoning = [thought.reasoningText, thought.text];

const values = ["a red ship", "a ship"];
const embedded = await embedMany({ model: provider.embeddingModel("echo"), values, maxRetries: 0 });
out.embeddings = embedded.embeddings.map((one) => one.length);
try {
  await generateText({ model: provider("no-such-model"), prompt: "x", maxRetries: 0 });
} catch (error) {
  out.error = [error.statusCode, error.data?.error?.code];
}
console.log(JSON.stringify(out));
