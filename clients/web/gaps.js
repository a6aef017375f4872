/** Text with gaps as people write it: `[[5]]` stands for five masks. */

const GAP = /\[\[(\d+)\]\]/;
const EVERY_GAP = /\[\[(\d+)\]\]/g;
export const DEFAULT_GAP = 4;

/**
 * @param {string} text
 * @returns {(string | {mask: number})[]} the segments of a canvas
 */
export function canvasOf(text) {
  const parts = text.split(GAP);
  return parts.flatMap((part, i) => {
    if (i % 2) return [{ mask: Number(part) }];
    // A token begins with the space before its word: the gap needs that space.
    const segment = i + 1 < parts.length ? part.replace(/ $/, "") : part;
    return segment === "" ? [] : [segment];
  });
}

/** @param {string} text @returns {number[]} the lengths of the gaps */
export function gapLengths(text) {
  return [...text.matchAll(EVERY_GAP)].map((match) => Number(match[1]));
}

/**
 * @param {string} text
 * @param {number} index  of the gap
 * @param {number} length
 */
export function withGapLength(text, index, length) {
  let at = 0;
  return text.replace(EVERY_GAP, (gap) => (at++ === index ? `[[${length}]]` : gap));
}

/** A canvas as people write it. @param {(string | {mask: number})[]} canvas */
export function textOf(canvas) {
  return canvas.map((part) => (typeof part === "string" ? part : `[[${part.mask}]]`)).join("");
}
