/** The page: sends a prompt, records its denoising states as they stream in, and shows any of them again. */

import { ApiError, denoise, rejoin } from "./api.js";
import { CanvasView } from "./canvas.js";
import { ChartView } from "./chart.js";
import { followMethod, readRequest } from "./form.js";
import { startHeader } from "./header.js";
import { copyText, hideNotice, showFailure, showMismatches, showResult } from "./outcome.js";
import { $ } from "./page.js";
import { Recording } from "./recording.js";
import { Player } from "./replay.js";

/** @typedef {import("./sse.js").SseEvent} SseEvent */

const NARROW = "(max-width: 60rem)";

const state = {
  /** @type {Recording | null} */
  recording: null,
  /** @type {number | null} the frame shown; null follows the newest */
  shownFrame: null,
  /** @type {AbortController | null} set while a request runs */
  request: null,
  /** the event after which a broken stream can resume; empty if it cannot */
  lastEventId: "",
  /** the last frame drawn */
  drawnFrame: 0,
  /** whether a request was sent and nothing has come back yet */
  isWaiting: false,
  isDrawPending: false,
};

const canvasView = new CanvasView($("canvas"), $("inspector"));
const chartView = new ChartView($("chart"));
const player = new Player($("play"), showNextFrame);

// --- a request ---------------------------------------------------------------------------------------------------

function generate() {
  if (state.request || !$("request").reportValidity()) return;
  const body = readRequest($("request"));
  state.lastEventId = "";
  run((signal) => denoise(body, signal));
}

function resume() {
  const { recording, lastEventId } = state;
  if (recording) run((signal) => rejoin(recording.start.id, lastEventId, signal));
}

/**
 * Follows one stream of denoising states to its end.
 * @param {(signal: AbortSignal) => AsyncGenerator<SseEvent>} open
 */
async function run(open) {
  state.request = new AbortController();
  state.shownFrame = null;
  player.pause();
  hideNotice();
  showRunning(true);
  let last = "";
  try {
    for await (const event of open(state.request.signal)) {
      receive(event);
      last = event.event;
    }
    if (last !== "done") throw new TypeError("the stream broke off");
  } catch (error) {
    showFailure(error, state.lastEventId !== "");
  } finally {
    state.request = null;
    showRunning(false);
  }
}

/** @param {SseEvent} event */
function receive({ event, data, id }) {
  state.lastEventId = id;
  if (state.isWaiting) showAnswering();
  RECEIVERS[event]?.(JSON.parse(data));
  requestDraw();
}

/** @type {Record<string, (data: any) => void>} */
const RECEIVERS = {
  start(data) {
    state.recording = new Recording(data);
    state.drawnFrame = 0;
    canvasView.reset(data.gen_length, data.block_length);
    $("replay").hidden = false;
    $("result").hidden = true;
    $("stage").scrollIntoView({ block: "nearest" });
  },
  step(data) {
    state.recording?.steps.push(data);
  },
  done(data) {
    if (!state.recording) return;
    state.recording.done = data;
    showResult(data);
    showMismatches(state.recording.mismatches());
  },
  error({ error }) {
    state.lastEventId = "";
    throw new ApiError(error.message, error);
  },
};

/** @param {boolean} isRunning  from the request's first byte out to its last byte in */
function showRunning(isRunning) {
  const hadFocus = document.activeElement === $("generate") || document.activeElement === $("stop");
  $("generate").disabled = isRunning;
  $("stop").disabled = !isRunning;
  if (hadFocus) $(isRunning ? "stop" : "generate").focus();
  if (isRunning) $("status").textContent = "Waiting for the server…";
  state.isWaiting = isRunning;
  $("stage").classList.toggle("is-waiting", isRunning);
}

function showAnswering() {
  state.isWaiting = false;
  $("stage").classList.remove("is-waiting");
  $("status").textContent = "Denoising…";
}

// --- drawing and replay ------------------------------------------------------------------------------------------

function requestDraw() {
  if (state.isDrawPending) return;
  state.isDrawPending = true;
  requestAnimationFrame(draw);
}

function draw() {
  state.isDrawPending = false;
  const { recording } = state;
  if (!recording) return;
  const frame = state.shownFrame ?? recording.lastFrame;
  const figures = recording.figuresAt(frame);
  const isFinal = recording.done !== null && frame === recording.lastFrame;
  canvasView.draw(recording.cellsAt(frame, seenFrame(frame)), isFinal ? null : figures.block);
  state.drawnFrame = frame;
  chartView.draw(recording, frame);
  $("progress").value = frame / Math.max(recording.expectedFrames, 1);
  drawFigures(figures, recording.start.steps);
  drawSlider(recording, frame);
}

/**
 * Returns the frame after which changes are new. During a request, a fast model may run several steps between two drawings.
 * @param {number} frame
 */
function seenFrame(frame) {
  const isLive = state.shownFrame === null && !state.recording?.done;
  return isLive ? Math.min(state.drawnFrame, frame - 1) : frame - 1;
}

/**
 * @param {ReturnType<Recording["figuresAt"]>} figures
 * @param {number | null} steps
 */
function drawFigures({ stepsRun, masked, elapsedMs, tokensPerStep }, steps) {
  $("step-figure").textContent = steps === null ? stepsRun : `${stepsRun} / ${steps}`;
  $("masks-figure").textContent = masked;
  $("elapsed-figure").textContent = `${Math.round(elapsedMs)} ms`;
  $("rate-figure").textContent = tokensPerStep === null ? "–" : tokensPerStep.toFixed(2);
}

/**
 * @param {Recording} recording
 * @param {number} frame
 */
function drawSlider(recording, frame) {
  $("slider").max = recording.expectedFrames;
  $("slider").value = frame;
  $("slider").setAttribute("aria-valuetext", `after step ${frame} of ${recording.lastFrame}`);
}

/** @param {number} frame */
function seek(frame) {
  if (!state.recording) return;
  state.shownFrame = frame < state.recording.lastFrame ? frame : null;
  requestDraw();
}

function showNextFrame() {
  if (state.shownFrame === null) return false;
  seek(state.shownFrame + 1);
  return true;
}

function togglePlay() {
  if (player.isPlaying || !state.recording) return player.pause();
  if (state.shownFrame === null) seek(0);
  player.play(state.recording.lastFrame);
}

// --- wiring ------------------------------------------------------------------------------------------------------

/** @param {SubmitEvent} event */
function onSubmit(event) {
  event.preventDefault();
  generate();
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) generate();
}

/** @param {MouseEvent} event */
function onExample({ target }) {
  if (!(target instanceof HTMLButtonElement)) return;
  $("prompt").value = target.textContent;
  $("prompt").focus();
}

function onSlide() {
  player.pause();
  seek($("slider").valueAsNumber);
}

function wire() {
  $("request").addEventListener("submit", onSubmit);
  $("request").addEventListener("keydown", onKey);
  $("examples").addEventListener("click", onExample);
  $("method").addEventListener("change", () => followMethod($("request")));
  $("stop").addEventListener("click", () => state.request?.abort());
  $("resume").addEventListener("click", resume);
  $("play").addEventListener("click", togglePlay);
  $("slider").addEventListener("input", onSlide);
  $("copy").addEventListener("click", copyText);
}

wire();
followMethod($("request"));
$("settings").open = !matchMedia(NARROW).matches;
startHeader();
