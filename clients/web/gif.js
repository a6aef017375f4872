/** Encodes an animated GIF (GIF89a specification, appendix F: LZW with codes of variable length). */

const MOST_COLOURS = 256;
const MOST_CODES = 4096;

/**
 * @param {number} width
 * @param {number} height
 * @param {{pixels: Uint8ClampedArray, delay: number}[]} frames  RGBA rows from the top; delays in milliseconds
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function encodeGif(width, height, frames) {
  const palette = paletteOf(frames);
  const size = [width & 255, width >> 8, height & 255, height >> 8];
  /** @type {number[]} */
  const bytes = [...ascii("GIF89a"), ...size, 0xf7, 0, 0, ...palette.table];
  // Netscape's extension: play it for ever.
  bytes.push(0x21, 0xff, 11, ...ascii("NETSCAPE2.0"), 3, 1, 0, 0, 0);
  for (const { pixels, delay } of frames) {
    const hundredths = Math.round(delay / 10);
    bytes.push(0x21, 0xf9, 4, 0, hundredths & 255, hundredths >> 8, 0, 0);
    bytes.push(0x2c, 0, 0, 0, 0, ...size, 0, 8);
    for (const byte of blocksOf(compress(palette.indicesOf(pixels)))) bytes.push(byte);
  }
  bytes.push(0x3b);
  return new Uint8Array(bytes);
}

/**
 * The commonest colours of all frames, in steps of 8; other colours take the nearest of these.
 * @param {{pixels: Uint8ClampedArray}[]} frames
 */
function paletteOf(frames) {
  /** @type {Map<number, number>} */
  const counts = new Map();
  for (const { pixels } of frames) {
    for (let i = 0; i < pixels.length; i += 4) {
      const key = keyOf(pixels, i);
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
  }
  const colours = [...counts].sort((a, b) => b[1] - a[1]).slice(0, MOST_COLOURS).map(([key]) => channelsOf(key));
  const table = Array.from({ length: MOST_COLOURS }, (_, i) => colours[i] ?? [0, 0, 0]).flat();
  /** @type {Map<number, number>} */
  const nearest = new Map();
  return {
    table,
    /** @param {Uint8ClampedArray} pixels */
    indicesOf(pixels) {
      const indices = new Uint8Array(pixels.length / 4);
      for (let i = 0; i < indices.length; i++) {
        const key = keyOf(pixels, 4 * i);
        let index = nearest.get(key);
        if (index === undefined) nearest.set(key, (index = nearestOf(channelsOf(key), colours)));
        indices[i] = index;
      }
      return indices;
    },
  };
}

/**
 * @param {Uint8ClampedArray} pixels
 * @param {number} at
 */
function keyOf(pixels, at) {
  return ((pixels[at] >> 3) << 10) | ((pixels[at + 1] >> 3) << 5) | (pixels[at + 2] >> 3);
}

/** @param {number} key @returns {number[]} red, green and blue: the five bits repeated, so that white stays white */
function channelsOf(key) {
  return [key >> 10, (key >> 5) & 31, key & 31].map((bits) => (bits << 3) | (bits >> 2));
}

/**
 * @param {number[]} colour
 * @param {number[][]} colours
 */
function nearestOf(colour, colours) {
  let [best, smallest] = [0, Infinity];
  colours.forEach((other, index) => {
    const distance = other.reduce((sum, channel, i) => sum + (channel - colour[i]) ** 2, 0);
    if (distance < smallest) [best, smallest] = [index, distance];
  });
  return best;
}

/**
 * @param {Uint8Array} indices
 * @returns {number[]} LZW codes as a stream of bits, the lowest first
 */
function compress(indices) {
  const [clear, stop] = [MOST_COLOURS, MOST_COLOURS + 1];
  /** @type {number[]} */
  const bytes = [];
  let [bits, numBits, codeSize] = [0, 0, 9];
  const write = (/** @type {number} */ code) => {
    bits |= code << numBits;
    for (numBits += codeSize; numBits >= 8; numBits -= 8, bits >>>= 8) bytes.push(bits & 255);
  };
  /** @type {Map<number, number>} */
  let codes = new Map();
  write(clear);
  let prefix = indices[0];
  for (let i = 1; i < indices.length; i++) {
    const key = prefix * MOST_COLOURS + indices[i];
    const known = codes.get(key);
    if (known !== undefined) {
      prefix = known;
      continue;
    }
    write(prefix);
    const next = stop + 1 + codes.size;
    if (next < MOST_CODES) {
      codes.set(key, next);
      if (next === 1 << codeSize) codeSize++;
    } else {
      write(clear);
      [codes, codeSize] = [new Map(), 9];
    }
    prefix = indices[i];
  }
  write(prefix);
  write(stop);
  if (numBits > 0) bytes.push(bits & 255);
  return bytes;
}

/**
 * Cuts data into blocks of up to 255 bytes, as the format wants.
 * @param {number[]} data
 */
function* blocksOf(data) {
  for (let i = 0; i < data.length; i += 255) {
    const block = data.slice(i, i + 255);
    yield block.length;
    yield* block;
  }
  yield 0;
}

/** @param {string} text */
function ascii(text) {
  return [...text].map((character) => character.charCodeAt(0));
}
