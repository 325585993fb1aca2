// Reads pictures by the page's own preprocessing and scores them by its own runtime, without a
// browser: node draw_page.mjs REQUEST, a JSON file. Prints a JSON list of {pixels, logits}, where
// pixels is null for a picture that shows nothing.
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const request = JSON.parse(await readFile(process.argv[2], "utf8"));
const load = (path) => import(pathToFileURL(path).href);
const { readDigit } = await load(request.preprocess);
const ort = await load(`${request.runtime}/ort.wasm.min.mjs`);
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = pathToFileURL(`${request.runtime}/`).href;

const session = await ort.InferenceSession.create(new Uint8Array(await readFile(request.model)));
const answers = [];
for (const { file, width, height } of request.pictures) {
  const pixels = readDigit({ width, height, data: new Uint8ClampedArray(await readFile(file)) });
  if (!pixels) {
    answers.push({ pixels: null });
    continue;
  }
  const images = new ort.Tensor("uint8", pixels, [1, 1, 28, 28]);
  const { logits } = await session.run({ images });
  answers.push({ pixels: Array.from(pixels), logits: Array.from(logits.data) });
}
console.log(JSON.stringify(answers));
