// Pictures of the model, float [c, h, w] from -1 to 1, as pixels of 8 bits.
"use strict";
function toPixels(picture, [channels, height, width]) {
  const data = new Uint8ClampedArray(4 * height * width);
  const plane = height * width;
  const byte = (value) => Math.min(255, Math.max(0, roundHalfToEven((value + 1) * 127.5)));
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) data[4 * i + c] = byte(picture[(channels < 3 ? 0 : c) * plane + i]);
    data[4 * i + 3] = channels === 4 ? byte(picture[3 * plane + i]) : 255;
  }
  return { width, height, data };
}

// As numpy and torch do it, so that each pixel is the one that Python writes.
function roundHalfToEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

// All pictures beside each other, with one transparent pixel between them.
function onOneSheet(pictures, columns) {
  const { width, height } = pictures[0];
  const rows = Math.ceil(pictures.length / columns);
  const wide = columns * (width + 1) - 1;
  const high = rows * (height + 1) - 1;
  const data = new Uint8ClampedArray(4 * wide * high);
  pictures.forEach((picture, number) => {
    const left = (number % columns) * (width + 1);
    const top = Math.floor(number / columns) * (height + 1);
    for (let y = 0; y < height; y++)
      data.set(
        picture.data.subarray(4 * y * width, 4 * (y + 1) * width),
        4 * ((top + y) * wide + left),
      );
  });
  return { width: wide, height: high, data };
}
