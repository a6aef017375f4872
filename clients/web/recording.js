/** Records the events of one request, and rebuilds the canvas at any of its steps. */

/**
 * @typedef {{op: "commit" | "edit" | "remask", step: number, position: number, token_id: number, text: string,
 *   confidence: number}} Change
 * @typedef {{step: number, block: number, changes: Change[], masked: number, elapsed_ms: number}} StepData
 * @typedef {{id: string, model: string, prompt_tokens: number, gen_length: number, block_length: number,
 *   steps: number | null, mask_token_id: number, special_tokens: Record<string, string>,
 *   token_ids: number[]}} StartData
 * @typedef {{prompt_tokens: number, completion_tokens: number, denoising_steps: number, forward_passes: number}} Usage
 * @typedef {{text: string, finish_reason: string, usage: Usage, token_ids: number[]}} DoneData
 *
 * @typedef {object} Cell
 * @property {number} position
 * @property {number} tokenId
 * @property {"mask" | "fixed" | "fresh" | "settled"} state  fixed: on the canvas from the start; fresh: from the newest step
 * @property {string} text
 * @property {string | null} endToken  the token's name if it ends the text
 * @property {number | null} step
 * @property {number | null} confidence
 * @property {boolean} isPastEnd  right of the end of the final text
 */

/** Frame 0 is the canvas at the start, frame k the canvas after the k-th step event. */
export class Recording {
  /** @type {StepData[]} */
  steps = [];
  /** @type {DoneData | null} */
  done = null;

  /** @param {StartData} start */
  constructor(start) {
    this.start = start;
  }

  get lastFrame() {
    return this.steps.length;
  }

  /** The number of frames to expect; fewer steps run if the text ends early. */
  get expectedFrames() {
    return this.done ? this.lastFrame : Math.max(this.start.steps ?? 0, this.lastFrame);
  }

  /**
   * @param {number} frame
   * @param {number} seenFrame  changes after this frame are fresh
   * @returns {Cell[]}
   */
  cellsAt(frame, seenFrame = frame - 1) {
    const cells = this.start.token_ids.map((id, position) => this.#initialCell(id, position));
    for (let i = 0; i < frame; i++) {
      for (const change of this.steps[i].changes) {
        cells[change.position] = this.#changedCell(change, i >= seenFrame);
      }
    }
    if (this.done && frame === this.lastFrame) {
      for (const cell of cells.slice(this.done.usage.completion_tokens)) cell.isPastEnd = true;
    }
    return cells;
  }

  get masksAtStart() {
    return this.start.token_ids.filter((id) => id === this.start.mask_token_id).length;
  }

  /** @param {number} frame */
  figuresAt(frame) {
    if (frame === 0) return { stepsRun: 0, block: null, masked: this.masksAtStart, elapsedMs: 0, tokensPerStep: null };
    const { step, block, masked, elapsed_ms: elapsedMs } = this.steps[frame - 1];
    const tokensPerStep = (this.masksAtStart - masked) / (step + 1);
    return { stepsRun: step + 1, block, masked, elapsedMs, tokensPerStep };
  }

  /** @returns {number[]} positions where the replay differs from the server's final canvas */
  mismatches() {
    if (!this.done) return [];
    const expected = this.done.token_ids;
    const replayed = this.cellsAt(this.lastFrame).map((cell) => cell.tokenId);
    const length = Math.max(expected.length, replayed.length);
    return Array.from({ length }, (_, i) => i).filter((i) => expected[i] !== replayed[i]);
  }

  /**
   * @param {number} tokenId
   * @param {number} position
   * @returns {Cell}
   */
  #initialCell(tokenId, position) {
    const state = tokenId === this.start.mask_token_id ? "mask" : "fixed";
    const endToken = this.#endToken(tokenId);
    return { position, tokenId, state, text: "", endToken, step: null, confidence: null, isPastEnd: false };
  }

  /**
   * @param {Change} change
   * @param {boolean} isFresh
   * @returns {Cell}
   */
  #changedCell(change, isFresh) {
    if (change.op === "remask") return this.#initialCell(this.start.mask_token_id, change.position);
    const { position, token_id: tokenId, text, step, confidence } = change;
    const state = isFresh ? "fresh" : "settled";
    const endToken = this.#endToken(tokenId);
    return { position, tokenId, state, text, endToken, step, confidence, isPastEnd: false };
  }

  /** @param {number} tokenId */
  #endToken(tokenId) {
    if (tokenId === this.start.mask_token_id) return null;
    return this.start.special_tokens[tokenId] ?? null;
  }
}
