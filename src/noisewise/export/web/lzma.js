// Unpacks LZMA ("alone" files, as Python's lzma writes them): a third smaller than gzip here, and
// browsers cannot unpack it themselves. After the specification of Igor Pavlov (LZMA SDK).
"use strict";
function unpackLzma(input) {
  let packed = input[0];
  const lc = packed % 9;
  packed = (packed / 9) | 0;
  const lpMask = (1 << packed % 5) - 1;
  const pbMask = (1 << ((packed / 5) | 0)) - 1;
  // Eight bytes of size; -1 where Python did not know it: then an end mark follows.
  const view = new DataView(input.buffer, input.byteOffset);
  const known = view.getUint32(9, true) !== 0xffffffff;
  const size = known ? view.getUint32(5, true) : Infinity;
  let output = new Uint8Array(known ? size : 1 << 22);
  let at = 0;
  let read = 18;
  let range = 0xffffffff;
  let code = view.getUint32(14, false);

  const probabilities = (count) => new Uint16Array(count).fill(1024);
  const bit = (table, index) => {
    const chance = table[index];
    const bound = (range >>> 11) * chance;
    let found;
    if ((code >>> 0) < bound) {
      range = bound;
      table[index] = chance + ((2048 - chance) >>> 5);
      found = 0;
    } else {
      range = (range - bound) >>> 0;
      code = (code - bound) >>> 0;
      table[index] = chance - (chance >>> 5);
      found = 1;
    }
    if (range < 0x1000000) {
      range = (range << 8) >>> 0;
      code = ((code << 8) | input[read++]) >>> 0;
    }
    return found;
  };
  const tree = (table, start, bits) => {
    let node = 1;
    for (let i = 0; i < bits; i++) node = (node << 1) | bit(table, start + node);
    return node - (1 << bits);
  };
  const reversed = (table, start, bits) => {
    let node = 1;
    let value = 0;
    for (let i = 0; i < bits; i++) {
      const found = bit(table, start + node);
      node = (node << 1) | found;
      value |= found << i;
    }
    return value;
  };
  const direct = (bits) => {
    let value = 0;
    for (let i = 0; i < bits; i++) {
      range >>>= 1;
      const found = code >= range ? 1 : 0;
      if (found) code = (code - range) >>> 0;
      value = value * 2 + found;
      if (range < 0x1000000) {
        range = (range << 8) >>> 0;
        code = ((code << 8) | input[read++]) >>> 0;
      }
    }
    return value;
  };
  const lengths = () => ({
    choice: probabilities(2),
    low: probabilities(128),
    middle: probabilities(128),
    high: probabilities(256),
  });
  const length = (coder, position) => {
    if (!bit(coder.choice, 0)) return tree(coder.low, position << 3, 3);
    if (!bit(coder.choice, 1)) return 8 + tree(coder.middle, position << 3, 3);
    return 16 + tree(coder.high, 0, 8);
  };

  const literals = probabilities(0x300 << (lc + Math.log2(lpMask + 1)));
  const isMatch = probabilities(12 << 4);
  const isRepeat = probabilities(12);
  const isRepeat0 = probabilities(12);
  const isRepeat1 = probabilities(12);
  const isRepeat2 = probabilities(12);
  const isLong = probabilities(12 << 4);
  const slots = probabilities(4 << 6);
  const near = probabilities(115);
  const aligned = probabilities(16);
  const matches = lengths();
  const repeats = lengths();
  let state = 0;
  let distances = [0, 0, 0, 0];

  const distance = (long) => {
    const slot = tree(slots, Math.min(long, 3) << 6, 6);
    if (slot < 4) return slot;
    const bits = (slot >> 1) - 1;
    const base = ((2 | (slot & 1)) << bits) >>> 0;
    if (slot < 14) return base + reversed(near, base - slot, bits);
    return base + direct(bits - 4) * 16 + reversed(aligned, 0, 4);
  };
  const grow = (needed) => {
    if (needed <= output.length) return;
    const larger = new Uint8Array(Math.max(needed, 2 * output.length));
    larger.set(output);
    output = larger;
  };

  while (at < size) {
    const position = at & pbMask;
    if (!bit(isMatch, (state << 4) + position)) {
      const before = at ? output[at - 1] : 0;
      const start = 0x300 * (((at & lpMask) << lc) + (before >> (8 - lc)));
      let symbol = 1;
      if (state >= 7) {
        let matched = output[at - distances[0] - 1];
        do {
          const expected = (matched >> 7) & 1;
          matched <<= 1;
          const found = bit(literals, start + ((1 + expected) << 8) + symbol);
          symbol = (symbol << 1) | found;
          if (found !== expected) break;
        } while (symbol < 0x100);
      }
      while (symbol < 0x100) symbol = (symbol << 1) | bit(literals, start + symbol);
      grow(at + 1);
      output[at++] = symbol & 0xff;
      state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
      continue;
    }
    let long;
    if (bit(isRepeat, state)) {
      if (!bit(isRepeat0, state)) {
        if (!bit(isLong, (state << 4) + position)) {
          grow(at + 1);
          output[at] = output[at - distances[0] - 1];
          at++;
          state = state < 7 ? 9 : 11;
          continue;
        }
      } else {
        const [a, b, c, d] = distances;
        if (!bit(isRepeat1, state)) distances = [b, a, c, d];
        else if (!bit(isRepeat2, state)) distances = [c, a, b, d];
        else distances = [d, a, b, c];
      }
      long = length(repeats, position);
      state = state < 7 ? 8 : 11;
    } else {
      long = length(matches, position);
      state = state < 7 ? 7 : 10;
      const found = distance(long);
      if (found === 0xffffffff) break; // the end mark
      distances = [found, distances[0], distances[1], distances[2]];
    }
    const back = distances[0] + 1;
    if (back > at) throw new Error("this file is damaged");
    const end = Math.min(at + long + 2, size);
    grow(end);
    for (; at < end; at++) output[at] = output[at - back];
  }
  return known ? output : output.slice(0, at); // its own buffer, without room to grow
}
