/** A small plot over the steps: masks left (filled) and mean confidence (line), with a cursor at the shown frame. */

/** @typedef {import("./recording.js").Recording} Recording */

const SVG = "http://www.w3.org/2000/svg";
const SIZE = 100;

export class ChartView {
  /** @param {SVGElement} root */
  constructor(root) {
    this.masks = addShape(root, "polygon", "masks");
    this.confidence = addShape(root, "polyline", "confidence");
    this.cursor = addShape(root, "line", "cursor");
    this.cursor.setAttribute("y1", "0");
    this.cursor.setAttribute("y2", String(SIZE));
  }

  /**
   * @param {Recording} recording
   * @param {number} frame
   */
  draw(recording, frame) {
    const scale = SIZE / Math.max(recording.expectedFrames, 1);
    const right = recording.lastFrame * scale;
    this.masks.setAttribute("points", `0,${SIZE} ${masksPoints(recording, scale)} ${right},${SIZE}`);
    this.confidence.setAttribute("points", confidencePoints(recording, scale));
    this.cursor.setAttribute("x1", String(frame * scale));
    this.cursor.setAttribute("x2", String(frame * scale));
  }
}

/**
 * @param {SVGElement} root
 * @param {string} tag
 * @param {string} className
 */
function addShape(root, tag, className) {
  const shape = document.createElementNS(SVG, tag);
  shape.setAttribute("class", className);
  shape.setAttribute("vector-effect", "non-scaling-stroke");
  root.append(shape);
  return shape;
}

/**
 * @param {Recording} recording
 * @param {number} scale
 */
function masksPoints(recording, scale) {
  const masked = [recording.masksAtStart, ...recording.steps.map((step) => step.masked)];
  return masked.map((count, frame) => point(frame * scale, count / Math.max(masked[0], 1))).join(" ");
}

/**
 * @param {Recording} recording
 * @param {number} scale
 */
function confidencePoints(recording, scale) {
  const points = recording.steps.map(({ changes }, i) => {
    const sum = changes.reduce((total, change) => total + change.confidence, 0);
    return point((i + 1) * scale, changes.length ? sum / changes.length : 0);
  });
  return points.join(" ");
}

/**
 * @param {number} x
 * @param {number} share  0 at the bottom, 1 at the top
 */
function point(x, share) {
  return `${x.toFixed(2)},${(SIZE * (1 - share)).toFixed(2)}`;
}
