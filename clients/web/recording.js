/** Records the events of one run, and rebuilds the canvas at any of its steps. */

/**
 * @typedef {{token_id: number, text: string, logprob: number}} Alternative
 * @typedef {{op: "commit" | "edit" | "remask", step: number, position: number, token_id: number, text: string,
 *   confidence: number, top_logprobs?: Alternative[]}} Change
 * @typedef {{position: number, token_id: number, confidence: number, text: string}} Prediction
 * @typedef {{step: number, block: number, changes: Change[], masked: number, elapsed_ms: number,
 *   predictions?: Prediction[]}} StepData
 * @typedef {{id: string, model: string, prompt_tokens: number, gen_length: number, block_length: number, block_offset?: number,
 *   steps: number | null, mask_token_id: number, special_tokens: Record<string, string>, token_ids: number[],
 *   generation_params?: Record<string, any>, parent?: {id: string, step: number}, changes?: Change[]}} StartData
 * @typedef {{prompt_tokens: number, completion_tokens: number, denoising_steps: number, forward_passes: number}} Usage
 * @typedef {{text: string, reasoning_content?: string | null, content?: string, finish_reason: string, usage: Usage,
 *   token_ids: number[]}} DoneData
 * @typedef {{request: Record<string, any>, start: StartData, steps: StepData[], done: DoneData | null,
 *   texts?: Record<string, string>}} Run
 * @typedef {"tokens" | "steps" | "passes" | "time"} Clock
 *
 * @typedef {object} Cell
 * @property {number} position
 * @property {number} block
 * @property {number} tokenId
 * @property {"mask" | "fixed" | "fresh" | "settled"} state  fixed: on the canvas from the start; fresh: from the newest step
 * @property {string} text
 * @property {string | null} endToken  the token's name if it ends the text
 * @property {number | null} step
 * @property {number | null} confidence
 * @property {Alternative[]} alternatives  the most probable tokens at the step that committed it
 * @property {(Prediction & {endToken: string | null}) | null} prediction  the model's best guess for a mask
 * @property {boolean} isPastEnd  right of the end of the final text
 * @property {boolean} isEdited  changed by the reader, for a branch
 * @property {boolean} isReplaced  the model has written over a token of its own
 */

const FORMAT = "llada-recording";
/** The frame of what a branch has from its parent. */
const BEFORE = -1;
const SMALLEST_DIFFERENCE = 1e-6;

/** Frame 0 is the canvas at the start, frame k the canvas after the k-th step event. */
export class Recording {
  /** @type {StepData[]} */
  steps = [];
  /** @type {DoneData | null} */
  done = null;
  /** @type {{frame: number, change: Change}[][]} what happened at each position, in order */
  #histories;
  /** the number of changes up to each frame */
  #changesUntil = [0];

  /**
   * @param {StartData} start
   * @param {Record<string, any>} request  the body that was sent
   * @param {Record<string, string>} texts  of given tokens, by id
   * @param {Recording | null} parent  of a branch
   */
  constructor(start, request, texts = {}, parent = null) {
    this.start = start;
    this.request = request;
    this.texts = texts;
    const given = start.token_ids.flatMap((id, position) => (id === start.mask_token_id ? [] : [position]));
    /** @type {Set<number>} positions of tokens that were there from the start, which no branch can change */
    this.fixed = parent?.fixed ?? new Set(given);
    this.#histories = start.token_ids.map(() => []);
    for (const change of start.changes ?? []) this.#histories[change.position].push({ frame: BEFORE, change });
  }

  /** @param {StepData} step */
  add(step) {
    const frame = this.steps.length + 1;
    for (const change of step.changes) this.#histories[change.position].push({ frame, change });
    this.steps.push(step);
    this.#changesUntil.push(this.#changesUntil[frame - 1] + step.changes.length);
  }

  get lastFrame() {
    return this.steps.length;
  }

  /** The number of frames to expect; fewer steps run if the text ends early. */
  get expectedFrames() {
    return this.done ? this.lastFrame : Math.max(this.start.steps ?? 0, this.lastFrame);
  }

  /** The number of the first step: a branch counts on from its parent. */
  get firstStep() {
    return this.start.parent?.step ?? 0;
  }

  get masksAtStart() {
    return this.start.token_ids.filter((id) => id === this.start.mask_token_id).length;
  }

  /** The finished text, without its thinking where the server has told that apart. */
  get answer() {
    const { text = "", content = text, reasoning_content: thinking = null } = this.done ?? {};
    return { thinking, said: thinking === null ? text : content.replace(/^\n+/, "") };
  }

  get hasPredictions() {
    return this.steps.some((step) => step.predictions);
  }

  /**
   * Costs the same for every frame: each position's history is searched, not replayed.
   * @param {number} frame
   * @param {number} seenFrame  changes after this frame are fresh
   * @returns {Cell[]}
   */
  cellsAt(frame, seenFrame = frame - 1) {
    const isFinal = this.done !== null && frame === this.lastFrame;
    const end = isFinal && this.done ? this.done.usage.completion_tokens : Infinity;
    const isCanvas = Boolean(this.request.canvas);
    const cells = this.start.token_ids.map((id, position) => {
      const entry = lastUntil(this.#histories[position], frame);
      const cell = entry ? this.#changedCell(entry.change, entry.frame > seenFrame) : this.#initialCell(id, position);
      cell.isPastEnd = position >= end && !isCanvas;
      return cell;
    });
    for (const guess of this.steps[frame - 1]?.predictions ?? []) {
      cells[guess.position].prediction = { ...guess, endToken: this.#endToken(guess.token_id) };
    }
    return cells;
  }

  /** @param {number} frame */
  figuresAt(frame) {
    const { firstStep, masksAtStart } = this;
    if (frame === 0) return { stepsRun: firstStep, block: null, masked: masksAtStart, elapsedMs: 0, tokensPerStep: null };
    const { step, block, masked, elapsed_ms: elapsedMs } = this.steps[frame - 1];
    const tokensPerStep = (masksAtStart - masked) / (step + 1 - firstStep);
    return { stepsRun: step + 1, block, masked, elapsedMs, tokensPerStep };
  }

  /**
   * Where a frame lies on a clock.
   * @param {Clock} clock  tokens written, steps run, forward passes made, or milliseconds
   * @param {number} frame
   */
  clockAt(clock, frame) {
    if (frame === 0) return 0;
    const { step, elapsed_ms: elapsedMs } = this.steps[frame - 1];
    const readings = {
      tokens: this.#changesUntil[frame],
      steps: step + 1,
      passes: (step + 1) * this.#passesPerStep,
      time: elapsedMs,
    };
    // Every frame has a place of its own, even if nothing was written or no time was measured.
    return readings[clock] + frame * SMALLEST_DIFFERENCE;
  }

  /**
   * The newest frame that a clock has reached.
   * @param {Clock} clock
   * @param {number} value
   */
  frameAt(clock, value) {
    let [low, high] = [0, this.lastFrame];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this.clockAt(clock, middle) <= value) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** @returns {number[]} positions where the replay differs from the server's final canvas */
  mismatches() {
    if (!this.done) return [];
    const expected = this.done.token_ids;
    const replayed = this.cellsAt(this.lastFrame).map((cell) => cell.tokenId);
    const length = Math.max(expected.length, replayed.length);
    return Array.from({ length }, (_, i) => i).filter((i) => expected[i] !== replayed[i]);
  }

  /** @returns {Run} */
  toJSON() {
    return { request: this.request, start: this.start, steps: this.steps, done: this.done, texts: this.texts };
  }

  /** Guidance makes two passes in every step. */
  get #passesPerStep() {
    if (this.done) return this.done.usage.forward_passes / Math.max(this.done.usage.denoising_steps, 1);
    return this.start.generation_params?.cfg_scale ? 2 : 1;
  }

  /**
   * @param {number} tokenId
   * @param {number} position
   * @returns {Cell}
   */
  #initialCell(tokenId, position) {
    const state = tokenId === this.start.mask_token_id ? "mask" : "fixed";
    return { ...this.#emptyCell(tokenId, position), state, text: state === "mask" ? "" : (this.texts[tokenId] ?? "") };
  }

  /**
   * @param {Change} change
   * @param {boolean} isFresh
   * @returns {Cell}
   */
  #changedCell(change, isFresh) {
    if (change.op === "remask") return this.#initialCell(this.start.mask_token_id, change.position);
    const { position, token_id: tokenId, text, step, confidence, top_logprobs: alternatives = [] } = change;
    const state = isFresh ? "fresh" : "settled";
    const isReplaced = change.op === "edit";
    return { ...this.#emptyCell(tokenId, position), state, text, step, confidence, alternatives, isReplaced };
  }

  /**
   * @param {number} tokenId
   * @param {number} position
   * @returns {Cell}
   */
  #emptyCell(tokenId, position) {
    return {
      position,
      block: Math.floor(((this.start.block_offset ?? 0) + position) / this.start.block_length),
      tokenId,
      state: "mask",
      text: "",
      endToken: this.#endToken(tokenId),
      step: null,
      confidence: null,
      alternatives: [],
      prediction: null,
      isPastEnd: false,
      isEdited: false,
      isReplaced: false,
    };
  }

  /** @param {number} tokenId */
  #endToken(tokenId) {
    if (tokenId === this.start.mask_token_id) return null;
    return this.start.special_tokens[tokenId] ?? null;
  }
}

/**
 * The file that a browser or a terminal saves.
 * @param {Recording[]} recordings
 * @param {string[]} titles
 */
export function fileOf(recordings, titles) {
  return { format: FORMAT, version: 1, titles, runs: recordings.map((recording) => recording.toJSON()) };
}

/**
 * Reads a saved file.
 * @param {any} file
 * @returns {{recordings: Recording[], titles: string[]}}
 * @throws {Error} it is not one; the message says why
 */
export function recordingsOf(file) {
  if (file?.format !== FORMAT) throw new Error(`it is not a ${FORMAT} file`);
  if (file.version !== 1) throw new Error(`its version is ${file.version}; this page reads version 1`);
  if (!Array.isArray(file.runs) || file.runs.length < 1 || file.runs.length > 2) {
    throw new Error("it must have one run, or two to compare");
  }
  const recordings = file.runs.map(recordingOf);
  const presets = recordings.map((/** @type {Recording} */ recording) => recording.request.preset ?? "as set");
  const isTitled = file.titles?.length === recordings.length && file.titles.every((/** @type {any} */ one) => typeof one === "string");
  return { recordings, titles: isTitled ? file.titles : recordings.length > 1 ? presets : ["Canvas"] };
}

/**
 * @param {Run} run
 * @param {number} index
 */
function recordingOf(run, index) {
  try {
    check(run);
    const recording = new Recording(run.start, run.request ?? {}, run.texts ?? {});
    run.steps.forEach((step) => recording.add(step));
    recording.done = run.done;
    return recording;
  } catch (error) {
    throw new Error(`run ${index + 1} is damaged: ${/** @type {Error} */ (error).message}`);
  }
}

/**
 * A file may come from anywhere: whatever drawing relies on is looked at.
 * @param {any} run
 * @throws {Error}
 */
function check({ start, steps, done }) {
  const [parent, changes] = [start.parent ?? { step: 0 }, start.changes ?? []];
  const length = start.token_ids.length;
  require(start.token_ids.every(Number.isInteger) && length > 0 && start.gen_length === length, "start.token_ids");
  require(Number.isInteger(start.block_length) && start.block_length > 0, "start.block_length");
  require(start.block_offset === undefined || (Number.isInteger(start.block_offset) && start.block_offset >= 0), "start.block_offset");
  require(Number.isInteger(start.mask_token_id) && typeof start.special_tokens === "object", "start");
  require(start.steps === null || Number.isInteger(start.steps), "start.steps");
  require(Number.isInteger(parent.step), "start.parent");
  require(changes.every((/** @type {any} */ one) => isChange(one, length)), "start.changes");
  steps.forEach((/** @type {any} */ step, /** @type {number} */ i) => {
    const numbers = [step.step, step.block, step.masked, step.elapsed_ms];
    require(numbers.every(Number.isFinite) && step.changes.every((/** @type {any} */ one) => isChange(one, length)), `step ${i + 1}`);
    require((step.predictions ?? []).every((/** @type {any} */ one) => isAt(one, length)), `step ${i + 1}`);
  });
  const { completion_tokens: tokens, denoising_steps: numSteps, forward_passes: passes } = done.usage;
  require([tokens, numSteps, passes].every(Number.isFinite) && typeof done.text === "string", "done");
  const parts = [done.content ?? "", done.reasoning_content ?? ""];
  require(parts.every((part) => typeof part === "string"), "done");
  require(done.token_ids.every(Number.isInteger), "done.token_ids");
}

/**
 * @param {any} change
 * @param {number} length
 */
function isChange(change, length) {
  const alternatives = change.top_logprobs ?? [];
  return (
    isAt(change, length) && ["commit", "edit", "remask"].includes(change.op) && Number.isInteger(change.step) &&
    alternatives.every((/** @type {any} */ one) => Number.isFinite(one.logprob) && typeof one.text === "string")
  );
}

/**
 * @param {any} token
 * @param {number} length
 */
function isAt({ position, token_id: id, text, confidence }, length) {
  const isInside = Number.isInteger(position) && position >= 0 && position < length;
  return isInside && Number.isInteger(id) && typeof text === "string" && Number.isFinite(confidence);
}

/**
 * @param {boolean} isRight
 * @param {string} what
 */
function require(isRight, what) {
  if (!isRight) throw new Error(what);
}

/**
 * @param {{frame: number, change: Change}[]} history
 * @param {number} frame
 */
function lastUntil(history, frame) {
  let [low, high] = [0, history.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (history[middle].frame <= frame) low = middle + 1;
    else high = middle;
  }
  return history[low - 1];
}
