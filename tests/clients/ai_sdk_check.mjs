// Vercel's AI SDK against a running server: arguments are its URL and model.
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [url, model] = process.argv.slice(2);
const provider = createOpenAICompatible({
  name: "lhrm", baseURL: `${url}/v1`, apiKey: "none", includeUsage: true, supportsStructuredOutputs: true,
});
const ask = (prompt, fields = {}) =>
  generateText({ model: provider(model), prompt, temperature: 0, maxRetries: 0, ...fields });
const EASY = "What is the capital of France?";
const HARD = "What is 48371+92615?";

const easy = await ask(EASY);
assert.equal(easy.text, "Paris");
assert.equal(easy.reasoningText, undefined);
const hard = await ask(HARD);
assert.equal(hard.text, "140986");
assert.ok(hard.reasoningText.length > 10);
assert.ok(hard.usage.outputTokenDetails.reasoningTokens > 0);
const forced = await ask(HARD, { providerOptions: { lhrm: { reasoningEffort: "none" } } });
assert.equal(forced.reasoningText, undefined);

const streamed = streamText({ model: provider(model), prompt: HARD, temperature: 0, maxRetries: 0 });
let content = "", reasoning = "";
for await (const part of streamed.fullStream) {
  if (part.type === "text-delta") content += part.text;
  if (part.type === "reasoning-delta") reasoning += part.text;
  if (part.type === "error") throw part.error;
}
assert.equal(content, "140986");
assert.equal(reasoning, hard.reasoningText);
assert.equal((await streamed.usage).outputTokens, hard.usage.outputTokens);
assert.equal(await streamed.finishReason, "stop");

// The reasoning of earlier turns goes back to the server.
const messages = [{ role: "user", content: HARD }, ...hard.response.messages, { role: "user", content: EASY }];
assert.equal((await ask(undefined, { messages })).text, "Paris");

const schema = z.object({ city: z.enum(["Paris", "Rome"]) });
const shaped = await ask("Which city?", { output: Output.object({ schema }) });
assert.ok(["Paris", "Rome"].includes(shaped.output.city));
const pick = tool({ description: "Pick a city.", inputSchema: schema });
const picked = await ask("Which city?", { tools: { pick }, toolChoice: "required", stopWhen: stepCountIs(1) });
assert.ok(["Paris", "Rome"].includes(picked.toolCalls[0].input.city));

await assert.rejects(ask(EASY, { temperature: 3 }), (error) => {
  assert.ok(APICallError.isInstance(error));
  assert.equal(error.statusCode, 400);
  assert.match(error.message, /temperature/);
  return true;
});
const leaving = new AbortController();
const stopped = streamText({ model: provider(model), prompt: HARD, abortSignal: leaving.signal, onError() {} });
for await (const _ of stopped.textStream) leaving.abort(); // ends the request
console.log("ai (Vercel AI SDK): as expected");
