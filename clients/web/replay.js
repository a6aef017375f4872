/** Plays the recorded frames of a request like a film. */

const DURATION_MS = 6_000;
const FASTEST_MS = 30;
const SLOWEST_MS = 250;

export class Player {
  #timer = 0;

  /**
   * @param {HTMLButtonElement} button
   * @param {() => boolean} advance  shows the next frame; false when there is none
   */
  constructor(button, advance) {
    this.button = button;
    this.advance = advance;
  }

  get isPlaying() {
    return this.#timer !== 0;
  }

  /** @param {number} numFrames */
  play(numFrames) {
    const interval = Math.min(Math.max(DURATION_MS / Math.max(numFrames, 1), FASTEST_MS), SLOWEST_MS);
    this.#timer = setInterval(() => this.advance() || this.pause(), interval);
    this.#label("❚❚", "Pause");
  }

  pause() {
    clearInterval(this.#timer);
    this.#timer = 0;
    this.#label("▶", "Play");
  }

  /**
   * @param {string} symbol
   * @param {string} name
   */
  #label(symbol, name) {
    this.button.textContent = symbol;
    this.button.setAttribute("aria-label", name);
  }
}
