/** The branches of the runs on the page: what went on from a changed frame, listed, each beside its parent. */

import { $ } from "./page.js";

/** @typedef {import("./recording.js").Recording} Recording */
/** @typedef {{recordings: Recording[], titles: string[]}} Shown */
/** @typedef {{title: string, from: string, shown: Shown}} Entry */

export class Branches {
  /** @type {Entry[]} the first is what was generated */
  #entries = [];
  #current = 0;
  #isBusy = false;

  /** @param {(shown: Shown) => void} onShow  called when the reader chooses an entry */
  constructor(onShow) {
    this.onShow = onShow;
  }

  /** Other runs begin: they have no branches yet. @param {Shown} shown */
  reset(shown) {
    this.#entries = [{ title: shown.titles.join(" and "), from: "", shown }];
    this.#current = 0;
    this.#draw();
  }

  /**
   * @param {Recording} parent
   * @param {Recording} branch
   * @returns {Shown} the branch beside its parent, or alone if that was not finished
   */
  add(parent, branch) {
    const [title, parentTitle] = [`Branch ${this.#entries.length}`, this.#titleOf(parent)];
    const isCompared = parent.done !== null;
    const shown = isCompared
      ? { recordings: [parent, branch], titles: [parentTitle, title] }
      : { recordings: [branch], titles: [title] };
    this.#current = this.#entries.push({ title, from: `${parentTitle}, step ${branch.firstStep}`, shown }) - 1;
    this.#draw();
    return shown;
  }

  /** While requests run, what they bring is shown. @param {boolean} isBusy */
  set isBusy(isBusy) {
    this.#isBusy = isBusy;
    this.#draw();
  }

  /** @param {Recording} recording */
  #titleOf(recording) {
    for (const { recordings, titles } of this.#entries.map((entry) => entry.shown)) {
      const index = recordings.indexOf(recording);
      if (index >= 0) return titles[index];
    }
    return "Canvas";
  }

  #draw() {
    $("branches").hidden = this.#entries.length < 2;
    const focused = [...$("branch-list").querySelectorAll("button")].indexOf(document.activeElement);
    $("branch-list").replaceChildren(...this.#entries.map((entry, i) => this.#item(entry, i)));
    if (focused >= 0) $("branch-list").querySelectorAll("button")[focused]?.focus();
  }

  /**
   * @param {Entry} entry
   * @param {number} index
   */
  #item({ title, from, shown }, index) {
    const [item, button] = [document.createElement("li"), document.createElement("button")];
    Object.assign(button, { type: "button", className: "small", textContent: title, disabled: this.#isBusy });
    button.setAttribute("aria-pressed", String(index === this.#current));
    button.addEventListener("click", () => {
      this.#current = index;
      this.#draw();
      this.onShow(shown);
    });
    item.append(button, from ? ` from ${from}` : "");
    return item;
  }
}
