/** Draws the canvas: one cell per response position, grouped by block, in one of several views. */

/** @typedef {import("./recording.js").Cell} Cell */
/** @typedef {"confidence" | "order" | "prediction"} View */

const LOW_CONFIDENCE = 0.3;
const MEDIUM_CONFIDENCE = 0.7;
const WHITESPACE = /(\s)/;

export class CanvasView {
  /** @type {HTMLElement[]} */
  #elements = [];
  /** @type {Map<number, HTMLElement>} by the number that events have */
  #blocks = new Map();
  /** @type {string[]} */
  #drawn = [];

  /**
   * @param {HTMLElement} root
   * @param {(position: number) => void} inspect  called with the position under the pointer or focus
   * @param {{toggle: (position: number) => boolean, type: (position: number, character: string) => boolean}} edit
   *     called for a click or Delete, and for a character that is typed; say whether the cell may be changed
   */
  constructor(root, inspect, edit) {
    this.root = root;
    this.inspect = inspect;
    this.edit = edit;
    root.addEventListener("click", (event) => this.#edit(event));
    root.addEventListener("pointerover", (event) => this.#point(event.target));
    root.addEventListener("focusin", (event) => this.#point(event.target));
    root.addEventListener("keydown", (event) => {
      this.#moveFocus(event);
      this.#edit(event);
    });
  }

  /**
   * Lays out an empty canvas. Where blocks count the prompt too, the first one may be shorter.
   * @param {{gen_length: number, block_length: number, block_offset?: number}} start
   */
  reset({ gen_length: genLength, block_length: blockLength, block_offset: offset = 0 }) {
    this.#elements = Array.from({ length: genLength }, newCellElement);
    this.#drawn = [];
    this.#blocks = new Map();
    for (let first = 0, last = 0; first < genLength; first = last) {
      const number = Math.floor((offset + first) / blockLength);
      last = (number + 1) * blockLength - offset;
      const block = document.createElement("ol");
      block.className = "block";
      block.setAttribute("aria-label", `Block ${number + 1}`);
      block.append(...this.#elements.slice(first, last));
      this.#blocks.set(number, block);
    }
    this.#elements[0].tabIndex = 0;
    this.root.replaceChildren(...this.#blocks.values());
  }

  /**
   * @param {Cell[]} cells
   * @param {{view: View, activeBlock: number | null, lastStep: number}} options
   */
  draw(cells, { view, activeBlock, lastStep }) {
    this.root.dataset.view = view;
    cells.forEach((cell, i) => {
      // Most cells do not change between two frames: their elements are not touched.
      const guess = view === "prediction" && cell.prediction ? `${cell.prediction.token_id} ${cell.prediction.confidence}` : "";
      const key = [cell.state, cell.tokenId, cell.step, cell.isPastEnd, cell.isEdited, cell.isReplaced, view, lastStep, guess].join();
      if (key === this.#drawn[i]) return;
      this.#drawn[i] = key;
      drawCell(this.#elements[i], cell, view, lastStep);
    });
    this.#blocks.forEach((block, number) => block.classList.toggle("is-active", number === activeBlock));
  }

  /** @param {EventTarget | null} target */
  #point(target) {
    const position = this.#positionOf(target);
    if (position >= 0) this.inspect(position);
  }

  /** @param {MouseEvent | KeyboardEvent} event */
  #edit(event) {
    const position = this.#positionOf(event.target);
    if (position < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const isToggled = !(event instanceof KeyboardEvent) || event.key === "Delete" || event.key === "Backspace";
    const isTyped = !isToggled && [...event.key].length === 1;
    const isDone = isToggled ? this.edit.toggle(position) : isTyped && this.edit.type(position, event.key);
    if (isDone) event.preventDefault();
  }

  /** @param {EventTarget | null} target @returns {number} −1 if it is no cell */
  #positionOf(target) {
    const element = target instanceof Element && target.closest("li");
    return element ? this.#elements.indexOf(/** @type {HTMLElement} */ (element)) : -1;
  }

  /** One tab stop for the whole canvas; arrow keys, Home and End inside it. @param {KeyboardEvent} event */
  #moveFocus(event) {
    const from = this.#elements.findIndex((element) => element === event.target);
    const next = from < 0 ? undefined : this.#neighbour(from, event.key);
    if (!next) return;
    event.preventDefault();
    this.#elements[from].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  /**
   * @param {number} from
   * @param {string} key
   */
  #neighbour(from, key) {
    if (key === "ArrowLeft") return this.#elements[from - 1];
    if (key === "ArrowRight") return this.#elements[from + 1];
    if (key === "Home") return this.#elements[0];
    if (key === "End") return this.#elements.at(-1);
    if (key === "ArrowUp") return nearestInRow(this.#elements[from], this.#elements.slice(0, from).reverse());
    if (key === "ArrowDown") return nearestInRow(this.#elements[from], this.#elements.slice(from + 1));
  }
}

/**
 * The cell of the next row that lies nearest below or above.
 * @param {HTMLElement} element
 * @param {HTMLElement[]} others  in the order of their distance
 */
function nearestInRow(element, others) {
  const { top, left, height } = element.getBoundingClientRect();
  let nearest, row = null, smallest = Infinity;
  for (const other of others) {
    const box = other.getBoundingClientRect();
    if (Math.abs(box.top - top) < height / 2) continue;
    if (row !== null && Math.abs(box.top - row) > height / 2) break;
    row = box.top;
    if (Math.abs(box.left - left) < smallest) [nearest, smallest] = [other, Math.abs(box.left - left)];
  }
  return nearest;
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
 * @param {View} view
 * @param {number} lastStep
 */
function drawCell(element, cell, view, lastStep) {
  const guess = view === "prediction" && cell.state === "mask" ? cell.prediction : null;
  element.dataset.state = guess ? "guess" : cell.state;
  element.dataset.band = confidenceBand(guess ? guess.confidence : cell.confidence);
  element.classList.toggle("is-past-end", cell.isPastEnd);
  element.classList.toggle("is-edited", cell.isEdited);
  element.classList.toggle("is-replaced", cell.isReplaced);
  element.classList.toggle("is-special", cell.endToken !== null);
  element.style.setProperty("--confidence", String(guess?.confidence ?? cell.confidence ?? 0));
  element.style.setProperty("--order", String((cell.step ?? 0) / Math.max(lastStep, 1)));
  element.title = describe(cell);
  element.replaceChildren(...(guess ? tokenNodes(guess.endToken, guess.text, guess.token_id) : cellNodes(cell)));
}

/** @param {number | null} confidence */
function confidenceBand(confidence) {
  if (confidence === null) return "";
  if (confidence < LOW_CONFIDENCE) return "low";
  return confidence < MEDIUM_CONFIDENCE ? "mid" : "high";
}

/** What is known of a cell, in one line. @param {Cell} cell */
export function describe(cell) {
  const where = `Position ${cell.position}`;
  if (cell.state === "mask") {
    if (!cell.prediction) return `${where}: masked, block ${cell.block + 1}`;
    const { endToken, text, token_id: id, confidence } = cell.prediction;
    const guess = JSON.stringify(endToken ?? (text || `#${id}`));
    return `${where}: masked, block ${cell.block + 1}; best guess ${guess}, confidence ${confidence.toFixed(3)}`;
  }
  const text = cell.endToken ?? cell.text;
  const token = text === "" ? `${where}: token ${cell.tokenId}` : `${where}: token ${cell.tokenId} ${JSON.stringify(text)}`;
  if (cell.isEdited) return `${token}, written over, block ${cell.block + 1}`;
  if (cell.step === null || cell.confidence === null) return `${token}, fixed from the start, block ${cell.block + 1}`;
  return `${token}${cell.isReplaced ? ", in place of another" : ""}, step ${cell.step + 1}, confidence ${cell.confidence.toFixed(3)}, block ${cell.block + 1}`;
}

/** @param {Cell} cell */
function cellNodes(cell) {
  return cell.state === "mask" ? [] : tokenNodes(cell.endToken, cell.text, cell.tokenId);
}

/**
 * Splits the token's text: whitespace gets elements of its own, so that the style sheet can mark it.
 * @param {string | null} endToken
 * @param {string} text
 * @param {number} tokenId
 * @returns {(Node | string)[]}
 */
function tokenNodes(endToken, text, tokenId) {
  if (endToken !== null) return ["end"];
  if (text === "") return [`#${tokenId}`];
  return text.split(WHITESPACE).filter(Boolean).map((part) => (WHITESPACE.test(part) ? whitespace(part) : part));
}

/** @param {string} character */
function whitespace(character) {
  const element = document.createElement("span");
  element.className = character === "\n" ? "newline" : "space";
  element.textContent = character;
  return element;
}
