// Writes a PNG without a canvas, which would round colours of pixels that are partly transparent.
"use strict";
const CRC = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let i = 0; i < 8; i++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function chunk(name, content) {
  const bytes = new Uint8Array(12 + content.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  for (let i = 0; i < 4; i++) bytes[4 + i] = name.charCodeAt(i);
  bytes.set(content, 8);
  let check = 0xffffffff;
  for (let i = 4; i < bytes.length - 4; i++) check = CRC[(check ^ bytes[i]) & 0xff] ^ (check >>> 8);
  view.setUint32(bytes.length - 4, ~check >>> 0);
  return bytes;
}

// A file of pixels { width, height, data: RGBA, not premultiplied }, each `scale` times enlarged.
async function pngFile({ width, height, data }, scale) {
  const row = width * scale * 4 + 1; // each row begins with its filter, 0
  const rows = new Uint8Array(row * height * scale);
  const source = new Uint32Array(data.buffer, data.byteOffset, width * height);
  const line = new Uint32Array(width * scale);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < line.length; x++) line[x] = source[y * width + Math.floor(x / scale)];
    const bytes = new Uint8Array(line.buffer);
    for (let i = 0; i < scale; i++) rows.set(bytes, (y * scale + i) * row + 1);
  }
  const packed = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const head = new Uint8Array(13);
  const view = new DataView(head.buffer);
  view.setUint32(0, width * scale);
  view.setUint32(4, height * scale);
  head.set([8, 6], 8); // 8 bits, RGBA
  const mark = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
  const content = new Uint8Array(await new Response(packed).arrayBuffer());
  const parts = [mark, chunk("IHDR", head), chunk("IDAT", content), chunk("IEND", new Uint8Array(0))];
  return new Blob(parts, { type: "image/png" });
}
