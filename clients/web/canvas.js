/** Draws the canvas: one cell per response position, grouped by block. */

/** @typedef {import("./recording.js").Cell} Cell */

const LOW_CONFIDENCE = 0.3;
const MEDIUM_CONFIDENCE = 0.7;
const WHITESPACE = /(\s)/;
const CELLS_BY_KEY = { ArrowLeft: -1, ArrowRight: 1 };

export class CanvasView {
  /** @type {HTMLElement[]} */
  #elements = [];
  /** @type {HTMLElement[]} */
  #blocks = [];
  /** @type {string[]} */
  #drawn = [];

  /**
   * @param {HTMLElement} root
   * @param {HTMLElement} inspector  describes the cell under the pointer or focus
   */
  constructor(root, inspector) {
    this.root = root;
    this.inspector = inspector;
    root.addEventListener("pointerover", (event) => this.#inspect(event.target));
    root.addEventListener("focusin", (event) => this.#inspect(event.target));
    root.addEventListener("keydown", (event) => this.#moveFocus(event));
  }

  /**
   * Lays out an empty canvas.
   * @param {number} genLength
   * @param {number} blockLength
   */
  reset(genLength, blockLength) {
    this.#elements = Array.from({ length: genLength }, newCellElement);
    this.#drawn = [];
    this.#blocks = [];
    for (let first = 0; first < genLength; first += blockLength) {
      const block = document.createElement("ol");
      block.className = "block";
      block.setAttribute("aria-label", `Block ${this.#blocks.length + 1}`);
      block.append(...this.#elements.slice(first, first + blockLength));
      this.#blocks.push(block);
    }
    this.#elements[0].tabIndex = 0;
    this.root.replaceChildren(...this.#blocks);
  }

  /**
   * @param {Cell[]} cells
   * @param {number | null} activeBlock
   */
  draw(cells, activeBlock) {
    cells.forEach((cell, i) => {
      // Most cells do not change between two frames: their elements are not touched.
      const key = [cell.state, cell.tokenId, cell.step, cell.isPastEnd].join();
      if (key === this.#drawn[i]) return;
      this.#drawn[i] = key;
      drawCell(this.#elements[i], cell);
    });
    this.#blocks.forEach((block, i) => block.classList.toggle("is-active", i === activeBlock));
  }

  /** @param {EventTarget | null} target */
  #inspect(target) {
    const element = target instanceof Element && target.closest("li");
    if (element) this.inspector.textContent = element.title;
  }

  /** One tab stop for the whole canvas, arrow keys inside it. @param {KeyboardEvent} event */
  #moveFocus(event) {
    const offset = CELLS_BY_KEY[/** @type {keyof typeof CELLS_BY_KEY} */ (event.key)];
    const from = this.#elements.findIndex((element) => element === event.target);
    const next = this.#elements[from + offset];
    if (from < 0 || !next) return;
    event.preventDefault();
    this.#elements[from].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
}

function newCellElement() {
  const element = document.createElement("li");
  element.className = "cell";
  element.tabIndex = -1;
  return element;
}

/**
 * @param {HTMLElement} element
 * @param {Cell} cell
 */
function drawCell(element, cell) {
  element.dataset.state = cell.state;
  element.dataset.band = cell.confidence === null ? "" : confidenceBand(cell.confidence);
  element.classList.toggle("is-past-end", cell.isPastEnd);
  element.classList.toggle("is-special", cell.endToken !== null);
  element.style.setProperty("--confidence", String(cell.confidence ?? 0));
  element.title = describe(cell);
  element.replaceChildren(...tokenNodes(cell));
}

/** @param {number} confidence */
function confidenceBand(confidence) {
  if (confidence < LOW_CONFIDENCE) return "low";
  return confidence < MEDIUM_CONFIDENCE ? "mid" : "high";
}

/** @param {Cell} cell */
function describe(cell) {
  if (cell.state === "mask") return `Position ${cell.position}: masked`;
  const where = `Position ${cell.position}: token ${cell.tokenId}`;
  const text = cell.endToken ?? cell.text;
  const token = text === "" ? where : `${where} ${JSON.stringify(text)}`;
  if (cell.step === null || cell.confidence === null) return `${token}, fixed from the start`;
  return `${token}, step ${cell.step + 1}, confidence ${cell.confidence.toFixed(3)}`;
}

/**
 * Splits the token's text: whitespace gets elements of its own, so that the style sheet can mark it.
 * @param {Cell} cell
 * @returns {(Node | string)[]}
 */
function tokenNodes(cell) {
  if (cell.state === "mask") return [];
  if (cell.endToken !== null) return ["end"];
  if (cell.text === "") return [`#${cell.tokenId}`];
  return cell.text.split(WHITESPACE).filter(Boolean).map((part) => (WHITESPACE.test(part) ? whitespace(part) : part));
}

/** @param {string} character */
function whitespace(character) {
  const element = document.createElement("span");
  element.className = character === "\n" ? "newline" : "space";
  element.textContent = character;
  return element;
}
