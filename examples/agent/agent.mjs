// An agent of meetara-build in JavaScript: it shortens trainings whose best step came long before their end.
//
// An agent in another language is an MCP server. Its tool `propose` gets the context (what builds have shown: domains with their
// configuration, runs with their metrics) and answers {"proposals": [...]}; its tool `insights` answers {"insights": ["..."]}.
// Both are optional. Run `npm install` in this folder once, then name it in conf/build.yaml and see it in the plan:
//
//   agents:
//     external: {shorter: {command: [node, examples/agent/agent.mjs], seconds: 10}}
//
//   meetara-build agents       lists it            meetara-build propose      asks it, and all others
//
// Standard output belongs to the protocol; what should be read by people goes to console.error, and lands in the agent's log.
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { z } from "zod";

const LONG_BEFORE = 0.8; // of all steps
const MARGIN = 1.1; // epochs kept beyond the best step's

// Each domain with the run that trained its adapter as it is now, unless that was stopped early: then it is short already.
function trained(context) {
  return Object.values(context.domains).flatMap((domain) => {
    const run = context.runs.findLast((run) => run.stage === "adapter" && run.key === domain.decided.adapter);
    const { steps, best_step: best, stopped_early: stopped } = run?.metrics ?? {};
    return steps > 0 && best > 0 && !stopped ? [{ domain, run, steps, best }] : [];
  });
}

function propose(context) {
  return trained(context).flatMap(({ domain, run, steps, best }) => {
    const epochs = domain.config["training.epochs"];
    const enough = Math.max(1, Math.ceil(((epochs * best) / steps) * MARGIN));
    if (best > LONG_BEFORE * steps || enough >= epochs) return [];
    return {
      domain: domain.name,
      key: "training.epochs",
      value: enough,
      reason: `the best step came after ${Math.round((100 * best) / steps)}% of the training; the rest was of no use`,
      evidence: [`run ${run.id}: best at step ${best} of ${steps}, in ${run.seconds.toFixed(1)} s`],
      expected_gain: 0.9 * (1 - enough / epochs), // a tenth for what does not depend on the epochs
      confidence: 0.6,
      figure: "seconds",
    };
  });
}

const insights = (context) =>
  trained(context).map(({ domain, steps, best }) => `${domain.name}: best after ${best} of ${steps} steps`);

const server = new McpServer({ name: "shorter", version: "1.0.0" });
for (const [tool, gives, work] of [["propose", "proposals", propose], ["insights", "insights", insights]]) {
  server.registerTool(tool, { inputSchema: { context: z.looseObject({}) } }, ({ context }) => ({
    content: [],
    structuredContent: { [gives]: work(context) },
  }));
}
await server.connect(new StdioServerTransport());
