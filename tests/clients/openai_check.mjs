// The official Node client against a running server: arguments are its URL and model.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { VERSION } from "openai/version";

const [url, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const ask = (question, fields = {}) =>
  client.chat.completions.create({
    model, messages: [{ role: "user", content: question }], temperature: 0, ...fields,
  });
const EASY = "What is the capital of France?";
const HARD = "What is 48371+92615?";

const easy = await ask(EASY);
assert.equal(easy.choices[0].message.content, "Paris");
assert.equal(easy.lhrm.mode, "no_think");
const hard = await ask(HARD);
assert.equal(hard.choices[0].message.content, "140986");
assert.ok(hard.usage.completion_tokens_details.reasoning_tokens > 0);
assert.equal((await ask(HARD, { reasoning_effort: "none" })).lhrm.mode, "no_think");

let content = "", reasoning = "", usage = null;
for await (const chunk of await ask(HARD, { stream: true, stream_options: { include_usage: true } })) {
  for (const { delta } of chunk.choices) {
    content += delta.content ?? "";
    reasoning += delta.reasoning_content ?? "";
  }
  usage = chunk.usage ?? usage;
}
assert.equal(content, "140986");
assert.equal(reasoning, hard.choices[0].message.reasoning_content);
assert.deepEqual(usage, hard.usage);

const tools = [{
  type: "function",
  function: {
    name: "pick",
    parameters: { type: "object", properties: { city: { enum: ["Paris", "Rome"] } }, required: ["city"] },
  },
}];
const picked = await ask("Which city?", { tools, tool_choice: "required" });
assert.ok(["Paris", "Rome"].includes(JSON.parse(picked.choices[0].message.tool_calls[0].function.arguments).city));

await assert.rejects(ask(EASY, { temperature: 3 }), (error) => {
  assert.ok(error instanceof OpenAI.BadRequestError);
  assert.equal(error.param, "temperature");
  return true;
});
const stream = await ask(HARD, { stream: true });
for await (const _ of stream) break; // leaving the loop ends the request
console.log(`openai (Node) ${VERSION}: as expected`);
