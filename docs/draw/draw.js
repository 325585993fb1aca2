/** The drawing page: from strokes or an image file to the model's prediction. */
import * as ort from "./onnxruntime/ort.wasm.min.mjs";
import { EXAMPLES } from "./examples.js";
import { readDigit } from "./preprocess.js";

const PEN_WIDTH = 22; // of the drawing's 280 pixels, as thick as a felt pen

const page = document.getElementById("draw");
const canvas = document.getElementById("draw-canvas");
const drawing = canvas.getContext("2d", { willReadFrequently: true });
const seen = document.getElementById("draw-seen").getContext("2d");
const answerLine = document.getElementById("draw-answer");
const fileInput = document.getElementById("draw-file");

const model = { record: null, session: null };
let loadedImage = null; // the pixels of an image file while it is shown
let strokeEnd = null; // position of the pen during a stroke
const EMPTY = "Draw a digit.";

// The model

async function loadModel() {
  const at = (name) => new URL(name, import.meta.url).href;
  ort.env.wasm.numThreads = 1; // more would need headers that static hosts do not send
  ort.env.wasm.wasmPaths = at("onnxruntime/");
  model.record = await (await fetchFile(at("model.json"))).json();
  const weights = await (await fetchFile(at("model.onnx"))).arrayBuffer();
  const session = await ort.InferenceSession.create(new Uint8Array(weights));
  await warmUp(session);
  model.session = session;
}

/** Classify a hidden example until the browser has compiled the code, so that the first stroke is fast. */
async function warmUp(session) {
  const sheet = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
  clear(sheet);
  trace(sheet, 8);
  const picture = sheet.getImageData(0, 0, canvas.width, canvas.height);
  for (let round = 0; round < 8; round++) await recognise(session, picture);
}

async function fetchFile(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address}: ${response.status}`);
  return response;
}

const DATA = { mnist: "the full MNIST", sample: "a sample of MNIST, for trying things out" };

function describeModel({ run_id, status, data, accuracy, n_test_images, sha256 }) {
  const parts = [];
  if (run_id) parts.push(`The model of run ${run_id}, ${status}, trained on ${DATA[data] ?? data}.`);
  if (accuracy) {
    const percent = (100 * accuracy).toFixed(2);
    parts.push(`It classifies ${percent}% of ${n_test_images.toLocaleString("en")} test images correctly.`);
  }
  parts.push(`SHA-256 of the file: ${sha256}`);
  document.getElementById("draw-model").textContent = parts.join(" ");
}

// The prediction

/** Classify a picture; null if it shows no digit. */
async function recognise(session, picture) {
  const pixels = readDigit(picture);
  if (!pixels) return null;
  const images = new ort.Tensor("uint8", pixels, [1, 1, 28, 28]);
  const { probabilities } = await session.run({ images });
  return { pixels, probabilities: Array.from(probabilities.data) };
}

let running = false;
let waiting = false;
let speak = false;

/** Update the prediction, once per frame; announce it to screen readers only when a stroke has ended. */
function update({ aloud }) {
  speak ||= aloud;
  waiting = true;
  if (!running && model.session) requestAnimationFrame(predict);
}

async function predict() {
  if (running || !waiting) return;
  running = true;
  waiting = false;
  let result;
  try {
    const picture = loadedImage ?? drawing.getImageData(0, 0, canvas.width, canvas.height);
    result = await recognise(model.session, picture);
  } finally {
    running = false;
  }
  if (waiting) requestAnimationFrame(predict);
  show(result);
}

function show(result) {
  const probabilities = result?.probabilities ?? new Array(10).fill(0);
  const most = Math.max(...probabilities);
  document.querySelectorAll("#draw-bars li").forEach((row, digit) => {
    const probability = probabilities[digit];
    row.classList.toggle("draw-best", most > 0 && probability === most);
    row.querySelector(".draw-bar").style.transform = `scaleX(${probability})`;
    row.querySelector(".draw-percent").textContent = result ? percent(probability) : "";
  });
  showPixels(result?.pixels ?? new Uint8Array(784));
  if (!speak || waiting) return;
  speak = false;
  answerLine.textContent = result ? describe(probabilities.indexOf(most), most) : EMPTY;
}

function describe(label, probability) {
  const article = label === 8 ? "an" : "a";
  return probability < 0.5
    ? `Perhaps ${article} ${label}, with a probability of ${percent(probability)}.`
    : `This is ${article} ${label}, with a probability of ${percent(probability)}.`;
}

function percent(probability) {
  return `${(100 * probability).toFixed(1)}%`;
}

function showPixels(pixels) {
  const image = seen.createImageData(28, 28);
  pixels.forEach((value, i) => image.data.set([value, value, value, 255], 4 * i));
  seen.putImageData(image, 0, 0);
}

// Drawing

function clear(sheet) {
  sheet.fillStyle = "white";
  sheet.fillRect(0, 0, canvas.width, canvas.height);
  sheet.strokeStyle = "black";
  sheet.lineWidth = PEN_WIDTH;
  sheet.lineCap = sheet.lineJoin = "round";
}

function clearDrawing() {
  loadedImage = null;
  clear(drawing);
}

function trace(sheet, digit) {
  const path = new Path2D();
  path.addPath(new Path2D(EXAMPLES[digit]), new DOMMatrix().scale(canvas.width / 100));
  sheet.stroke(path);
}

function place(event) {
  const frame = canvas.getBoundingClientRect();
  const scale = canvas.width / canvas.clientWidth;
  return {
    x: (event.clientX - frame.left - canvas.clientLeft) * scale,
    y: (event.clientY - frame.top - canvas.clientTop) * scale,
  };
}

function strokeTo(point) {
  drawing.beginPath();
  drawing.moveTo(strokeEnd.x, strokeEnd.y);
  drawing.lineTo(point.x, point.y);
  drawing.stroke();
  strokeEnd = point;
}

function drawExample(digit) {
  clearDrawing();
  trace(drawing, digit);
  update({ aloud: true });
}

canvas.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button !== 0) return;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  if (loadedImage) clearDrawing(); // a stroke starts a new drawing
  strokeEnd = place(event);
  strokeTo(strokeEnd); // a dot
  update({ aloud: false });
});

canvas.addEventListener("pointermove", (event) => {
  if (!strokeEnd || !event.isPrimary) return;
  for (const step of event.getCoalescedEvents?.() ?? [event]) strokeTo(place(step));
  update({ aloud: false });
});

for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, (event) => {
    if (!strokeEnd || !event.isPrimary) return;
    strokeEnd = null;
    update({ aloud: true });
  });
}

// Image files

async function loadFile(file) {
  await loading;
  let image;
  try {
    // As in Pillow: rotated by the EXIF orientation, colours as stored in the file.
    const options = { premultiplyAlpha: "none", colorSpaceConversion: "none" };
    image = await createImageBitmap(file, options);
  } catch {
    answerLine.textContent = `${file.name} cannot be read as an image.`;
    return;
  }
  const { width, height } = image;
  const most = model.record.max_image_megapixels;
  if (width * height > most * 1e6) {
    answerLine.textContent = `${file.name} has more than ${most} megapixels.`;
    return;
  }
  const whole = new OffscreenCanvas(width, height).getContext("2d");
  whole.drawImage(image, 0, 0);
  clearDrawing();
  loadedImage = whole.getImageData(0, 0, width, height);
  const scale = Math.min(canvas.width / width, canvas.height / height);
  const [left, top] = [canvas.width - width * scale, canvas.height - height * scale];
  drawing.drawImage(image, left / 2, top / 2, width * scale, height * scale);
  update({ aloud: true });
}

fileInput.addEventListener("change", () => {
  if (fileInput.files.length) loadFile(fileInput.files[0]);
  fileInput.value = ""; // allows choosing the same file again
});

canvas.addEventListener("dragover", (event) => {
  event.preventDefault();
  canvas.classList.add("draw-over");
});
canvas.addEventListener("dragleave", () => canvas.classList.remove("draw-over"));
canvas.addEventListener("drop", (event) => {
  event.preventDefault();
  canvas.classList.remove("draw-over");
  if (event.dataTransfer.files.length) loadFile(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) loadFile(event.clipboardData.files[0]);
});

// The page

function makeRows() {
  const bars = document.getElementById("draw-bars");
  const examples = document.getElementById("draw-examples");
  for (let digit = 0; digit < 10; digit++) {
    const row = bars.appendChild(document.createElement("li"));
    row.innerHTML = `<span>${digit}</span><span class="draw-track" aria-hidden="true"><span class="draw-bar"></span></span><span class="draw-percent"></span>`;
    const button = examples.appendChild(document.createElement("button"));
    button.type = "button";
    button.textContent = digit;
    button.setAttribute("aria-label", `Example of the digit ${digit}`);
    button.addEventListener("click", () => drawExample(digit));
  }
}

document.getElementById("draw-clear").addEventListener("click", () => {
  clearDrawing();
  update({ aloud: true });
});

makeRows();
clearDrawing();
showPixels(new Uint8Array(784));
answerLine.textContent = "Loading the model …";
const loading = loadModel();
try {
  await loading;
  describeModel(model.record);
  answerLine.textContent = EMPTY;
  page.dataset.state = "ready";
  if (waiting) update({ aloud: true }); // drawn while the model was loading
} catch (error) {
  page.dataset.state = "failed";
  answerLine.textContent = `The model cannot be loaded (${error.message}). Load the page again.`;
}
