/** Draws a recording as a picture: a still of its last frame, or a moving one of all. */

import { count } from "./counts.js";
import { encodeGif } from "./gif.js";

/** @typedef {import("./recording.js").Recording} Recording */
/** @typedef {import("./recording.js").Cell} Cell */
/** @typedef {{x: number, y: number, width: number}} Box */

const WIDTH = 760;
const MARGIN = 20;
const CELL_HEIGHT = 26;
const CELL_GAP = 3;
const FONT = '14px ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace';
const MOST_FRAMES = 60;
const FRAME_MS = 100;
const LAST_FRAME_MS = 2500;
const BANDS = [[0.3, "low"], [0.7, "mid"], [Infinity, "high"]];

/**
 * @param {Recording} recording
 * @returns {Promise<Blob>} a PNG of the last frame
 */
export function stillOf(recording) {
  const { canvas } = new Picture(recording).at(recording.lastFrame);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the browser drew no picture"))), "image/png");
  });
}

/**
 * @param {Recording} recording
 * @returns {Promise<Blob>} an animated GIF
 */
export async function movingPictureOf(recording) {
  const picture = new Picture(recording);
  const count = Math.min(recording.lastFrame + 1, MOST_FRAMES);
  const frames = [];
  for (let i = 0; i < count; i++) {
    const frame = count === 1 ? 0 : Math.round((i * recording.lastFrame) / (count - 1));
    const { canvas, context } = picture.at(frame);
    const delay = i + 1 === count ? LAST_FRAME_MS : FRAME_MS;
    frames.push({ pixels: context.getImageData(0, 0, canvas.width, canvas.height).data, delay });
    // Long pictures must not freeze the page.
    await new Promise((resolve) => setTimeout(resolve));
  }
  return new Blob([encodeGif(picture.canvas.width, picture.canvas.height, frames)], { type: "image/gif" });
}

class Picture {
  /** @param {Recording} recording */
  constructor(recording) {
    this.recording = recording;
    this.canvas = document.createElement("canvas");
    this.context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d", { willReadFrequently: true }));
    this.context.font = FONT;
    // The cells of the last frame are the widest: laid out once, nothing moves.
    const { boxes, bottom } = this.#layOut(recording.cellsAt(recording.lastFrame));
    this.boxes = boxes;
    [this.canvas.width, this.canvas.height] = [WIDTH, bottom + MARGIN + 24];
    this.style = getComputedStyle(document.documentElement);
  }

  /** @param {number} frame */
  at(frame) {
    const { context, canvas, recording } = this;
    Object.assign(context, { font: FONT, textBaseline: "middle", fillStyle: this.#colour("card") });
    context.fillRect(0, 0, canvas.width, canvas.height);
    recording.cellsAt(frame).forEach((cell, i) => this.#drawCell(cell, this.boxes[i]));
    const { stepsRun, masked } = recording.figuresAt(frame);
    const { denoising_steps: steps = stepsRun, forward_passes: passes } = recording.done?.usage ?? {};
    const text =
      frame === recording.lastFrame && passes
        ? `${count(steps, "step")}, ${count(passes, "forward pass", "forward passes")}`
        : `step ${stepsRun}, ${count(masked, "mask")} left`;
    context.fillStyle = this.#colour("quiet");
    context.fillText(`${recording.start.model}: ${text}`, MARGIN, canvas.height - MARGIN);
    return { canvas, context };
  }

  /** @param {Cell[]} cells */
  #layOut(cells) {
    let [x, y] = [MARGIN, MARGIN];
    /** @type {Box[]} */
    const boxes = cells.map((cell) => {
      const width = Math.min(Math.max(18, this.context.measureText(labelOf(cell)).width + 10), WIDTH - 2 * MARGIN);
      if (x + width > WIDTH - MARGIN) [x, y] = [MARGIN, y + CELL_HEIGHT + CELL_GAP];
      const box = { x, y, width };
      x += width + CELL_GAP;
      return box;
    });
    return { boxes, bottom: y + CELL_HEIGHT };
  }

  /**
   * @param {Cell} cell
   * @param {Box} box
   */
  #drawCell(cell, { x, y, width }) {
    const { context } = this;
    const [fill, line, text] = this.#coloursOf(cell);
    context.fillStyle = fill;
    context.fillRect(x, y, width, CELL_HEIGHT);
    context.strokeStyle = line;
    context.strokeRect(x + 0.5, y + 0.5, width - 1, CELL_HEIGHT - 1);
    context.fillStyle = text;
    if (cell.state !== "mask") context.fillText(labelOf(cell), x + 5, y + CELL_HEIGHT / 2 + 1, width - 8);
  }

  /** @param {Cell} cell @returns {string[]} fill, border and text */
  #coloursOf(cell) {
    if (cell.state === "mask") return ["mask-b", "mask-a", "text"].map((name) => this.#colour(name));
    if (cell.isPastEnd || cell.state === "fixed") return ["card", "line", "quiet"].map((name) => this.#colour(name));
    const band = BANDS.find(([limit]) => (cell.confidence ?? 1) < Number(limit))?.[1];
    const name = cell.state === "settled" ? "settled" : band;
    return [name, `${name}-line`, `${name}-text`].map((one) => this.#colour(String(one)));
  }

  /** @param {string} name */
  #colour(name) {
    return this.style.getPropertyValue(`--${name}`).trim();
  }
}

/** @param {Cell} cell */
function labelOf(cell) {
  if (cell.state === "mask") return "";
  if (cell.endToken !== null) return "end";
  return cell.text === "" ? `#${cell.tokenId}` : cell.text.replaceAll("\n", "↵").replaceAll(" ", "·");
}
