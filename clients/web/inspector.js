/** Says what is known of the cell that is pointed at: its token, and what else the model thought of there. */

import { describe } from "./canvas.js";

/** @typedef {import("./recording.js").Cell} Cell */

export class Inspector {
  /** @type {number | null} */
  position = null;
  #shown = "";

  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
  }

  /** Show the cell pointed at as it is in this frame. @param {Cell[]} cells */
  draw(cells) {
    const cell = this.position === null ? undefined : cells[this.position];
    const text = cell ? describe(cell) : "Point at a cell, or use the arrow keys, to see its token.";
    if (text === this.#shown) return;
    this.#shown = text;
    const line = document.createElement("p");
    line.textContent = text;
    this.root.replaceChildren(line, ...(cell?.alternatives.length ? [alternativesOf(cell)] : []));
  }
}

/** @param {Cell} cell */
function alternativesOf(cell) {
  const list = document.createElement("ol");
  list.className = "alternatives";
  list.setAttribute("aria-label", "The most probable tokens at that step");
  list.append(...cell.alternatives.map(({ token_id: id, text, logprob }) => {
    const item = document.createElement("li");
    const probability = Math.exp(logprob);
    item.classList.toggle("is-chosen", id === cell.tokenId);
    item.style.setProperty("--confidence", String(probability));
    item.textContent = `${text === "" ? `#${id}` : JSON.stringify(text)} ${(100 * probability).toFixed(1)} %`;
    return item;
  }));
  return list;
}
