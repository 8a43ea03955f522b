// Random numbers of pictures, the same as in Python (noisewise/training/models/seeded_noise.py):
// numpy's SeedSequence of (seed, picture, stream) seeds a Mersenne Twister, whose numbers become
// normal ones by the method of Box and Muller, in blocks of 16, as torch.randn does it on a CPU.
// So a seed draws the same pictures here and by `noisewise sample --seed`, up to rounding.
"use strict";
const START = 0;
const LABEL = 2;
const WALK = 3; // and above: of the calls after the first

// O'Neill 2015, "Developing a seed_seq alternative"; numpy.random.SeedSequence.
function seedWord(seed, number, stream) {
  let constant = 0x43b0d7e5;
  const hashed = (value) => {
    value ^= constant;
    constant = Math.imul(constant, 0x931e8875);
    value = Math.imul(value, constant);
    return value ^ (value >>> 16);
  };
  const mixed = (x, y) => {
    const value = Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y);
    return value ^ (value >>> 16);
  };
  const pool = [seed, number, stream, 0].map(hashed);
  for (let from = 0; from < 4; from++)
    for (let to = 0; to < 4; to++) if (from !== to) pool[to] = mixed(pool[to], hashed(pool[from]));
  const first = 0x8b51f9dd;
  const value = Math.imul(pool[0] ^ first, Math.imul(first, 0x58f38ded));
  return (value ^ (value >>> 16)) >>> 0;
}

// Matsumoto and Nishimura 1998.
class Twister {
  constructor(seed) {
    this.words = new Uint32Array(624);
    this.words[0] = seed;
    for (let i = 1; i < 624; i++) {
      const before = this.words[i - 1];
      this.words[i] = Math.imul(before ^ (before >>> 30), 1812433253) + i;
    }
    this.at = 624;
  }

  next() {
    if (this.at === 624) this.turn();
    let y = this.words[this.at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  turn() {
    const words = this.words;
    for (let i = 0; i < 624; i++) {
      const y = (words[i] & 0x80000000) | (words[(i + 1) % 624] & 0x7fffffff);
      words[i] = words[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.at = 0;
  }
}

// Standard normal numbers of one picture; it has 16 of them or more.
function normals(seed, number, count, stream = START) {
  const twister = new Twister(seedWord(seed, number, stream));
  const values = new Float64Array(count);
  const uniform = () => (twister.next() & 0xffffff) / 0x1000000;
  for (let i = 0; i < count; i++) values[i] = uniform();
  const block = (start) => {
    for (let i = start; i < start + 8; i++) {
      const radius = Math.sqrt(-2 * Math.log(1 - values[i]));
      const angle = 2 * Math.PI * values[i + 8];
      values[i] = radius * Math.cos(angle);
      values[i + 8] = radius * Math.sin(angle);
    }
  };
  for (let start = 0; start + 16 <= count; start += 16) block(start);
  if (count % 16) {
    for (let i = count - 16; i < count; i++) values[i] = uniform();
    block(count - 16);
  }
  return Float32Array.from(values);
}

// Class of a picture of a seed, as often as in the training pictures.
function drawnLabel(seed, number, histogram) {
  const total = histogram.reduce((sum, count) => sum + count, 0);
  const share = seedWord(seed, number, LABEL) / 0x100000000;
  let below = 0;
  for (let label = 0; label < histogram.length; label++) {
    below += histogram[label];
    if (share < below / total) return label;
  }
  return histogram.length - 1;
}

// Shoemake 1985: on the way between two noises on a sphere, so that each step is noise as well.
function slerp(a, b, share) {
  let dot = 0;
  let lengthA = 0;
  let lengthB = 0;
  for (let i = 0; i < a.length; i++) {
    dot += a[i] * b[i];
    lengthA += a[i] * a[i];
    lengthB += b[i] * b[i];
  }
  const cosine = Math.min(1, Math.max(-1, dot / Math.sqrt(lengthA * lengthB)));
  const angle = Math.acos(cosine);
  let [partA, partB] = [1 - share, share];
  if (angle > 1e-4) {
    partA = Math.sin((1 - share) * angle) / Math.sin(angle);
    partB = Math.sin(share * angle) / Math.sin(angle);
  }
  return a.map((value, i) => partA * value + partB * b[i]);
}
