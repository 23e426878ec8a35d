// GitHub's own reader of workflows and actions. Prints, as JSON, the errors it finds: { file: [message, …] }.
// Bundled by esbuild before it runs, since its JSON imports do not load on Node 20.
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { NoOperationTraceWriter, convertWorkflowTemplate, parseWorkflow } from "@actions/workflow-parser";
import { convertActionTemplate, parseAction } from "@actions/workflow-parser/actions/index";

async function errors(name) {
  const file = { name, content: readFileSync(name, "utf-8") };
  const trace = new NoOperationTraceWriter();
  const action = basename(name).startsWith("action.");
  const result = action ? parseAction(file, trace) : parseWorkflow(file, trace);
  if (result.value) {
    if (action) convertActionTemplate(result.context, result.value);
    else await convertWorkflowTemplate(result.context, result.value);
  }
  return [name, result.context.errors.getErrors().map((error) => error.message)];
}

Promise.all(process.argv.slice(2).map(errors)).then((found) => console.log(JSON.stringify(Object.fromEntries(found))));
