// The official TypeScript client: calls what stdin's plan says, and prints what it was shown and what went wrong.
import { readFileSync } from "node:fs";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import * as types from "@modelcontextprotocol/sdk/types.js";

const plan = JSON.parse(readFileSync(0, "utf8"));
const capabilities = { sampling: {}, roots: {}, elicitation: { form: {}, url: {} } };
const client = new Client({ name: "real", version: "1" }, { capabilities });
client.setRequestHandler(types.CreateMessageRequestSchema, () => ({
  role: "assistant",
  model: "none",
  content: { type: "text", text: "a sampled word" },
}));
client.setRequestHandler(types.ElicitRequestSchema, (request) =>
  request.params.mode === "url" ? { action: "accept" } : { action: "accept", content: { name: "Ada" } },
);
client.setRequestHandler(types.ListRootsRequestSchema, () => ({ roots: [{ uri: "file:///srv/root", name: "root" }] }));

await client.connect(new StreamableHTTPClientTransport(new URL(process.argv[2])));
let shown = [];
for (let attempt = 0; attempt < 20; attempt++) {
  shown = (await client.listTools()).tools.map((tool) => tool.name);
  if (plan.every(([tool]) => shown.includes(tool))) break;
  await new Promise((resolve) => setTimeout(resolve, 1000));
}
const wrong = {};
for (const [tool, args, expected] of plan) {
  try {
    const answer = await client.callTool({ name: tool, arguments: args });
    const said = JSON.stringify(answer);
    if (answer.isError || !said.includes(expected)) wrong[tool] = said.slice(0, 300);
  } catch (error) {
    wrong[tool] = String(error).slice(0, 300);
  }
}
console.log(JSON.stringify({ shown, wrong }));
await client.close();
