// A client on the TypeScript SDK: lists, reads, subscribes, calls, and prints what it saw as JSON.
// node talk.mjs FOLDER_OF_NODE_MODULES URL TOKEN
import { pathToFileURL } from "node:url";

const [modules, url, token] = process.argv.slice(2);
const sdk = (name) => import(pathToFileURL(`${modules}/@modelcontextprotocol/sdk/dist/esm/${name}`));
const { Client } = await sdk("client/index.js");
const { StreamableHTTPClientTransport } = await sdk("client/streamableHttp.js");
const { ResourceUpdatedNotificationSchema } = await sdk("types.js");

const client = new Client({ name: "talk", version: "1.0.0" });
const heard = new Promise((resolve) =>
  client.setNotificationHandler(ResourceUpdatedNotificationSchema, (said) => resolve(said.params.uri)),
);
await client.connect(
  new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: { Authorization: `Bearer ${token}` } } }),
);
const { resources } = await client.listResources();
const { tools } = await client.listTools();
const { contents } = await client.readResource({ uri: "meetara://quality_metrics/nutrition" });
await client.subscribeResource({ uri: "meetara://training_state" });
const began = Date.now();
const called = await client.callTool({
  name: "propose",
  arguments: { domain: "nutrition", key: "training.epochs", value: 4, reason: "it still falls" },
});
const uri = await heard;
console.log(
  JSON.stringify({
    resources: resources.map((one) => one.uri),
    tools: tools.map((one) => one.name),
    read: JSON.parse(contents[0].text),
    called: called.structuredContent,
    heard: uri,
    milliseconds: Date.now() - began,
  }),
);
await client.close();
