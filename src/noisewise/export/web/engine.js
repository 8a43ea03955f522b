// Runs in a worker, so that the page stays smooth: unpacks ONNX Runtime and the model, and draws.
"use strict";
function fromBase64(text) {
  const letters = atob(text.trim());
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

let ort = null;
let session = null;

async function open({ runtime, wasm, model }) {
  const code = new Blob([unpackLzma(fromBase64(runtime))], { type: "text/javascript" });
  const address = URL.createObjectURL(code);
  ort = await import(address);
  URL.revokeObjectURL(address);
  // One thread: several need headers that a file on a disk does not have.
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = unpackLzma(fromBase64(wasm)).buffer;
  session = await ort.InferenceSession.create(unpackLzma(fromBase64(model)), {
    executionProviders: ["wasm"],
  });
}

async function draw({ noise, labels, shape, calls }) {
  const size = shape[0] * shape[1] * shape[2];
  const count = noise.length / (calls * size);
  const [first, later] = [new Float32Array(count * size), new Float32Array(count * (calls - 1) * size)];
  for (let i = 0; i < count; i++) {
    const start = i * calls * size;
    first.set(noise.subarray(start, start + size), i * size);
    later.set(noise.subarray(start + size, start + calls * size), i * (calls - 1) * size);
  }
  const given = { z: new ort.Tensor("float32", first, [count, ...shape]) };
  if (calls > 1) given.noise = new ort.Tensor("float32", later, [count, calls - 1, ...shape]);
  if (session.inputNames.includes("label"))
    given.label = new ort.Tensor("int64", BigInt64Array.from(labels, BigInt), [count]);
  const begin = performance.now();
  const { pictures } = await session.run(given);
  return { pictures: pictures.data, milliseconds: performance.now() - begin };
}

let before = Promise.resolve();
self.onmessage = ({ data }) => {
  const answer = async () => {
    try {
      self.postMessage({ id: data.id, found: await (data.open ? open(data.open) : draw(data.draw)) });
    } catch (error) {
      self.postMessage({ id: data.id, failed: String(error?.message ?? error) });
    }
  };
  before = before.then(answer); // a session draws one batch at a time
};
