// A client on Vercel's AI SDK: asks, streams, is refused, and prints what it saw as JSON.
// node chat.mjs FOLDER_OF_NODE_MODULES URL
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, url] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
const { generateText, streamText } = await load("ai");

const provider = createOpenAICompatible({ name: "meetara", baseURL: `${url}/v1`, includeUsage: true });
const asked = { prompt: "What is in bread?", maxOutputTokens: 20, temperature: 1, seed: 7, maxRetries: 0 };
const whole = await generateText({ model: provider("nutrition"), ...asked });
const stream = streamText({ model: provider("nutrition"), ...asked });
const pieces = [];
for await (const piece of stream.textStream) pieces.push(piece);
const refused = await generateText({ model: provider("nutritoin"), ...asked }).catch((error) => error);
console.log(
  JSON.stringify({
    text: whole.text,
    streamed: pieces.join(""),
    pieces: pieces.length,
    model: whole.response.modelId,
    tokens: whole.usage.outputTokens,
    streamedTokens: (await stream.usage).outputTokens,
    status: refused.statusCode,
    message: refused.message,
  }),
);
