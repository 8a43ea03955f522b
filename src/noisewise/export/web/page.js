// The page: a grid of pictures, one of them enlarged, and the way between two.
"use strict";
const $ = (id) => document.getElementById(id);
const about = JSON.parse($("about").textContent);
const shape = [about.channels, about.height, about.width];
const size = shape[0] * shape[1] * shape[2];
const all = about.calls * size; // numbers of noise for one picture
const COUNT = 16;
const COLUMNS = 4;
const AT_ONCE = 4; // pictures of a batch: the first ones are shown early
const TURNED = 0.35; // how far "more like this" walks to other noise, of 1

// ------------------------------------------------------------------------------ the network
const worker = new Worker(
  URL.createObjectURL(new Blob([$("engine").textContent], { type: "text/javascript" })),
);
const waiting = new Map();
let asked = 0;

function ask(request) {
  return new Promise((resolve, reject) => {
    waiting.set(++asked, { resolve, reject });
    worker.postMessage({ id: asked, ...request });
  });
}

worker.onmessage = ({ data }) => {
  const { resolve, reject } = waiting.get(data.id);
  waiting.delete(data.id);
  if (data.failed === undefined) resolve(data.found);
  else reject(new Error(data.failed));
};

function draw(noise, labels = new Array(noise.length / all).fill(0)) {
  return ask({ draw: { noise: Float32Array.from(noise), labels: Array.from(labels), shape, calls: about.calls } });
}

const ready = ask({
  open: {
    runtime: $("runtime").textContent,
    wasm: $("wasm").textContent,
    model: $("model").textContent,
  },
});

// Noise of every call for one picture.
function noiseOf(seed, number) {
  const found = new Float32Array(all);
  for (let call = 0; call < about.calls; call++)
    found.set(normals(seed, number, size, call ? WALK + call - 1 : START), call * size);
  return found;
}

// For other programs: pictures for noise that they choose, float [n, calls, c, h, w] in one row.
window.noisewise = Object.freeze({ about, ready, draw, noise: noiseOf });

// ------------------------------------------------------------------------------ what is shown
let items = []; // { name, noise, label, pixels }
let shown = 0; // number of the enlarged picture
let second = null; // number of the picture that it is mixed with
let choosing = false; // the next picture that is clicked is the second one
let like = null; // name of the picture that the others are like
let walks = 0; // "more like this" so far
let turn = 0; // pictures that come late are dropped
let mixed = null; // pixels of the mix
let speed = ""; // what the last set took, in words

const spell = (label) => (about.classes.length ? about.classes[label] : "");
const named = (item) => (spell(item.label) ? `${item.name}, ${spell(item.label)}` : item.name);
const say = (text) => {
  $("status").textContent = text;
};

function paint(canvas, pixels) {
  canvas.width = pixels.width;
  canvas.height = pixels.height;
  canvas.getContext("2d").putImageData(new ImageData(pixels.data, pixels.width, pixels.height), 0, 0);
}

function chosenLabel() {
  const chosen = document.querySelector("[name=class]:checked") ?? document.querySelector("select#class");
  return chosen && chosen.value !== "" ? Number(chosen.value) : null;
}

function currentSeed() {
  return Number($("seed").value) >>> 0;
}

function ofSeed() {
  const [seed, chosen] = [currentSeed(), chosenLabel()];
  return Array.from({ length: COUNT }, (_, i) => ({
    name: `Picture ${i + 1}`,
    noise: noiseOf(seed, i),
    label: chosen ?? (about.classes.length ? drawnLabel(seed, i, about.label_histogram) : 0),
    pixels: null,
  }));
}

function near(item) {
  const seed = currentSeed();
  const first = 1000 * ++walks;
  return Array.from({ length: COUNT }, (_, i) => ({
    name: `Picture ${i + 1}`,
    noise: i ? slerp(item.noise, noiseOf(seed, first + i), TURNED) : item.noise,
    label: item.label,
    pixels: null,
  }));
}

// Draws a new set of pictures; until they come, the noise is shown that they are made of.
async function fill(next, heading) {
  const mine = ++turn;
  items = next;
  shown = 0;
  stopMixing();
  $("heading").textContent = heading;
  $("back").hidden = like === null;
  document.body.classList.add("busy");
  items.forEach((item, i) => paint(cell(i).firstChild, noisy(item)));
  mark();
  await ready;
  let milliseconds = 0;
  for (let start = 0; start < items.length; start += AT_ONCE) {
    const part = items.slice(start, start + AT_ONCE);
    const noise = new Float32Array(part.length * all);
    part.forEach((item, i) => noise.set(item.noise, i * all));
    const found = await draw(noise, part.map((item) => item.label));
    if (mine !== turn) return;
    milliseconds += found.milliseconds;
    part.forEach((item, i) => {
      item.pixels = toPixels(found.pictures.subarray(i * size, (i + 1) * size), shape);
      paint(cell(start + i).firstChild, item.pixels);
    });
    if (start === 0) mark();
  }
  document.body.classList.remove("busy");
  const each = milliseconds / items.length;
  speed = `${each < 10 ? each.toFixed(1) : Math.round(each)} milliseconds a picture.`;
  say(speed);
  document.documentElement.dataset.drawn = String(Number(document.documentElement.dataset.drawn ?? 0) + 1);
}

// Noise as a picture: the middle of its values is grey.
function noisy(item) {
  const plane = shape[1] * shape[2];
  const shownChannels = Math.min(shape[0], 3);
  const part = item.noise.subarray(0, shownChannels * plane).map((value) => value / 3);
  return toPixels(part, [shownChannels, shape[1], shape[2]]);
}

let drawnFor = ""; // seed and class of the pictures
function drawSeed() {
  if (!$("seed").reportValidity()) return;
  drawnFor = wanted();
  like = null;
  walks = 0;
  const chosen = chosenLabel();
  const of = chosen === null ? "" : `, ${spell(chosen)}`;
  fill(ofSeed(), `Pictures of seed ${currentSeed()}${of}`).catch(trouble);
}

function wanted() {
  return `${currentSeed()} ${chosenLabel()}`;
}

function drawAlike() {
  const item = items[shown];
  like = named(item);
  const next = near(second === null ? item : { ...item, ...halfway() });
  fill(next, second === null ? `More like ${named(item)}` : "More like the mix").catch(trouble);
}

function halfway() {
  const share = Number($("share").value) / 100;
  const [a, b] = [items[shown], items[second]];
  return { noise: slerp(a.noise, b.noise, share), label: share < 0.5 ? a.label : b.label };
}

// ------------------------------------------------------------------------------ the large picture
function mark() {
  items.forEach((item, i) => {
    const button = cell(i);
    button.setAttribute("aria-label", i === second ? `${named(item)}, mixed in` : named(item));
    button.setAttribute("aria-current", String(i === shown));
    button.classList.toggle("second", i === second);
    button.tabIndex = i === shown ? 0 : -1;
  });
  const pixels = current();
  if (second === null) describe(named(items[shown]));
  if (pixels) paint($("shown"), pixels);
  else paint($("shown"), noisy(items[shown]));
  for (const id of ["alike", "mixing", "save", "sheet"]) $(id).disabled = !items[shown].pixels;
}

function current() {
  return second === null ? items[shown].pixels : mixed;
}

function describe(text) {
  $("caption").textContent = text;
  $("shown").setAttribute("aria-label", text);
}

let mixingNow = false;
let mixAgain = false;
async function drawMix() {
  const share = Number($("share").value);
  const [a, b] = [items[shown], items[second]];
  const text = `${100 - share}% ${a.name}, ${share}% ${b.name}`;
  $("share").setAttribute("aria-valuetext", text);
  if (mixingNow) {
    mixAgain = true; // the last place of the slider is drawn, those between may be left out
    return;
  }
  mixingNow = true;
  mixAgain = false;
  const mine = turn;
  const { noise, label } = halfway();
  const found = await draw(noise, [label]).finally(() => (mixingNow = false));
  if (mine !== turn || second === null) return;
  mixed = toPixels(found.pictures, shape);
  paint($("shown"), mixed);
  describe(spell(label) ? `${text}: ${spell(label)}` : text);
  $("shown").dataset.share = String(share);
  if (mixAgain) await drawMix();
}

function stopMixing() {
  second = null;
  mixed = null;
  choose(false);
  $("mix").hidden = true;
}

function choose(on) {
  choosing = on;
  document.body.classList.toggle("choosing", on);
  $("mixing").setAttribute("aria-pressed", String(on || second !== null));
  $("mixing").textContent = on ? "Choose a picture…" : second === null ? "Mix with another" : "Stop mixing";
}

function pick(number, asSecond) {
  if (!items[number].pixels) return;
  if (asSecond && number !== shown) {
    second = number;
    choose(false);
    say(speed);
    $("mix").hidden = false;
    $("share").value = "50";
    paint($("from"), items[shown].pixels);
    paint($("to"), items[second].pixels);
    mixed = items[shown].pixels;
    mark();
    drawMix().catch(trouble);
    return;
  }
  stopMixing();
  shown = number;
  mark();
}

// ------------------------------------------------------------------------------ files
function fileName(...parts) {
  const words = [about.name, ...parts].join(" ").toLowerCase();
  return `${words.replace(/[^\p{Letter}\p{Number}]+/gu, "-").replace(/^-|-$/g, "")}.png`;
}

async function save(pixels, scale, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await pngFile(pixels, scale));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  say(`Saved ${name}.`);
}

const scale = () => Number($("scale").value);
const part = () => (like === null ? `seed ${currentSeed()}` : `seed ${currentSeed()} walk ${walks}`);

// ------------------------------------------------------------------------------ the controls
function cell(number) {
  return $("grid").children[number];
}

function trouble(error) {
  say("");
  const text = document.createElement("p");
  text.className = "trouble";
  text.textContent =
    `This browser could not draw (${error.message}). A current Firefox, Chrome, Edge or Safari can.`;
  $("all").prepend(text);
}

for (let i = 0; i < COUNT; i++) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(document.createElement("canvas"));
  button.addEventListener("click", (event) => pick(i, choosing || event.shiftKey));
  $("grid").append(button);
}

$("grid").addEventListener("keydown", (event) => {
  const here = Array.from($("grid").children).indexOf(document.activeElement);
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -COLUMNS, ArrowDown: COLUMNS };
  const there = { Home: 0, End: COUNT - 1 }[event.key] ?? here + (steps[event.key] ?? 0);
  if (here < 0 || there === here || there < 0 || there >= COUNT) return;
  event.preventDefault();
  cell(there).focus();
});

for (const times of [1, 4, 8, 16]) {
  const [width, height] = [times * shape[2], times * shape[1]];
  if (times > 1 && Math.max(width, height) > 1100) break;
  const option = new Option(`${width} px`, String(times), false, times === 8);
  $("scale").append(option);
}

$("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  $("seed").value = String(crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000);
  drawSeed();
});
$("controls").addEventListener("change", () => {
  if (wanted() !== drawnFor) drawSeed();
});
$("seed").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault(); // Enter here means this seed, not a new one
  drawSeed();
});
$("alike").addEventListener("click", drawAlike);
$("back").addEventListener("click", drawSeed);
$("mixing").addEventListener("click", () => {
  if (second === null && !choosing) {
    choose(true);
    say("Choose the picture to mix in.");
    return;
  }
  stopMixing();
  say(speed);
  mark();
});
$("share").addEventListener("input", () => drawMix().catch(trouble));
$("save").addEventListener("click", () => {
  const item = items[shown];
  const name = second === null ? item.name : `${item.name} and ${items[second].name} ${$("share").value}`;
  save(current(), scale(), fileName(part(), name)).catch(trouble);
});
$("sheet").addEventListener("click", () => {
  const drawn = items.map((item) => item.pixels).filter(Boolean);
  save(onOneSheet(drawn, COLUMNS), scale(), fileName(part())).catch(trouble);
});
document.body.classList.toggle("clear", about.channels === 4);
drawSeed();
