/** Changes a frame of a run: words are masked again or written over, for a branch that goes on from there. */

import { count } from "./counts.js";

/** @typedef {import("./recording.js").Recording} Recording */
/** @typedef {import("./recording.js").Cell} Cell */
/** @typedef {{token_id: number, text: string}} Token */
/** @typedef {{remask: number[], set: Record<string, string>}} Edits */
/** @typedef {(recording: Recording, frame: number, edits: Edits) => void} Branching */

const HINT = "Click words to mask them again, or type over them. Then go on from here.";

export class Editor {
  /** whether this frame may be changed now */
  isOpen = false;
  /** counts the changes, so that a drawing can tell whether it is the latest */
  version = 0;
  #frame = -1;
  /** @type {number | null} the position that is written at */
  #position = null;
  /** @type {Cell[]} the frame without changes */
  #cells = [];
  #masked = new Set();
  /** @type {Map<number, {text: string, tokens: Token[]}>} */
  #written = new Map();
  /** @type {Promise<boolean> | null} whether the words that were typed could be written; null when none are on their way */
  #writing = null;

  /**
   * @param {HTMLFormElement} root
   * @param {Recording} recording
   * @param {{onChange: () => void, onBranch?: Branching, tokenize?: (text: string) => Promise<Token[]>}} handlers
   *     without onBranch and tokenize, as in a file, nothing can be changed
   */
  constructor(root, recording, { onChange, onBranch, tokenize }) {
    this.root = root;
    this.recording = recording;
    this.onChange = onChange;
    this.onBranch = onBranch;
    this.tokenize = tokenize;
    root.addEventListener("submit", (event) => this.#submit(event));
    this.#part("undo").addEventListener("click", () => this.#undo());
    this.#part("go").addEventListener("click", () => this.#go());
  }

  /**
   * Show a frame; the changes made to another one are gone.
   * @param {Cell[]} cells
   * @param {number} frame
   * @param {boolean} isOpen
   * @returns {Cell[]} the cells as they were changed
   */
  show(cells, frame, isOpen) {
    this.#cells = cells;
    this.isOpen = isOpen && this.onBranch !== undefined;
    if (frame !== this.#frame) this.#forget();
    this.#frame = frame;
    this.#draw();
    return cells.map((cell) => this.#changed(cell));
  }

  /**
   * Mask a word again or, if it was changed already, take that back.
   * @param {number} position
   * @returns {boolean} whether it may be changed
   */
  toggle(position) {
    if (!this.#pick(position)) return false;
    const start = this.#startAt(position);
    if (start !== undefined) this.#written.delete(start);
    else if (this.#masked.has(position)) this.#masked.delete(position);
    else if (this.#cells[position].state !== "mask") this.#masked.add(position);
    this.#change();
    return true;
  }

  /**
   * Begin to write over a word.
   * @param {number} position
   * @param {string} character  the first one typed
   * @returns {boolean} whether it may be changed
   */
  type(position, character) {
    if (!this.#pick(position)) return false;
    const space = this.#cells[position].text.startsWith(" ") && character !== " " ? " " : "";
    this.#part("text").value = space + character;
    this.#part("text").focus();
    return true;
  }

  /** @param {number} position @returns {boolean} whether it may be changed */
  #pick(position) {
    if (!this.isOpen) return false;
    const isFixed = this.recording.fixed.has(position);
    if (!isFixed) {
      this.#position = position;
      this.#part("text").value = this.#cells[position].text;
    }
    this.#draw(isFixed ? `Position ${position} is fixed from the start.` : "");
    return !isFixed;
  }

  /** Write the words, after those that were typed before them. @param {Event} event */
  #submit(event) {
    event.preventDefault();
    const [position, text, frame] = [this.#position, this.#part("text").value, this.#frame];
    if (position === null || text === "" || !this.tokenize) return;
    const writing = (this.#writing ?? Promise.resolve(true)).then(() => this.#write(position, text, frame));
    this.#writing = writing;
    writing.then(() => {
      if (this.#writing === writing) this.#writing = null;
    });
  }

  /** Branch off, with the words that are still on their way; not if they can't be written, which is then said. */
  async #go() {
    const frame = this.#frame;
    if (this.#writing && !(await this.#writing)) return;
    if (this.isOpen && frame === this.#frame) this.onBranch?.(this.recording, frame, this.#edits);
  }

  /**
   * @param {number} position
   * @param {string} text
   * @param {number} frame  the one in which it was typed
   * @returns {Promise<boolean>} whether it could be written
   */
  async #write(position, text, frame) {
    let tokens;
    try {
      tokens = await /** @type {(text: string) => Promise<Token[]>} */ (this.tokenize)(text);
    } catch (error) {
      this.#draw(/** @type {Error} */ (error).message);
      return false;
    }
    if (!this.isOpen || frame !== this.#frame) return false;
    const positions = tokens.map((_, i) => position + i);
    const problem = this.#problemAt(positions);
    if (problem) {
      this.#draw(problem);
      return false;
    }
    for (const one of positions) {
      this.#masked.delete(one);
      const start = this.#startAt(one);
      if (start !== undefined) this.#written.delete(start);
    }
    this.#written.set(position, { text, tokens });
    this.#change();
    return true;
  }

  /** @param {number[]} positions @returns {string} why nothing can be written there; empty if it can */
  #problemAt(positions) {
    const last = this.#cells.length - 1;
    if (positions.some((one) => one > last)) return `That is ${count(positions.length, "token")}; the last position is ${last}.`;
    const fixed = positions.find((one) => this.recording.fixed.has(one));
    return fixed === undefined ? "" : `That is ${count(positions.length, "token")}, and position ${fixed} is fixed from the start.`;
  }

  /** @returns {Edits} */
  get #edits() {
    const set = Object.fromEntries([...this.#written].map(([position, { text }]) => [position, text]));
    return { remask: [...this.#masked].sort((a, b) => a - b), set };
  }

  /** Where the word begins that was written over a position. @param {number} position */
  #startAt(position) {
    return [...this.#written.keys()].find((start) => position >= start && position < start + (this.#written.get(start)?.tokens.length ?? 0));
  }

  /** @param {Cell} cell @returns {Cell} */
  #changed(cell) {
    const blank = { ...cell, endToken: null, step: null, confidence: null, alternatives: [], prediction: null, isEdited: true };
    if (this.#masked.has(cell.position)) return { ...blank, state: "mask", text: "" };
    const start = this.#startAt(cell.position);
    if (start === undefined) return cell;
    const { token_id: tokenId, text } = /** @type {{tokens: Token[]}} */ (this.#written.get(start)).tokens[cell.position - start];
    return { ...blank, state: "fixed", tokenId, text, isPastEnd: false };
  }

  #undo() {
    this.#masked.clear();
    this.#written.clear();
    this.#change();
    this.#part("text").focus();
  }

  #forget() {
    this.#masked.clear();
    this.#written.clear();
    this.#position = null;
  }

  #change() {
    this.version++;
    this.onChange();
  }

  #draw(problem = "") {
    const count = this.#masked.size + this.#written.size;
    this.root.hidden = !this.isOpen;
    this.#part("controls").hidden = this.#position === null;
    this.#part("place").textContent = `Write at position ${this.#position}`;
    this.#part("undo").disabled = this.#part("go").disabled = count === 0;
    const summary = problem || (count === 0 ? HINT : `${count} ${count === 1 ? "change" : "changes"} to this frame.`);
    if (this.#part("summary").textContent !== summary) this.#part("summary").textContent = summary;
  }

  /** @param {string} name @returns {any} */
  #part(name) {
    return this.root.querySelector(`[data-part="edit-${name}"]`);
  }
}
