/** The page: sends what the form holds, shows the runs as they come in, and keeps, shares and exports them. */

import { Branches } from "./branches.js";
import { addExchange, chatTurns, clearChat, takeBackExchange } from "./chat.js";
import { copyFrom } from "./clipboard.js";
import { count } from "./counts.js";
import { EXAMPLES } from "./examples.js";
import { open, save } from "./files.js";
import * as form from "./form.js";
import { modelName, startHeader } from "./header.js";
import { tokensOf } from "./labels.js";
import { hideNotice, isAbort, showFailure, showMismatches, showNotice, showStatus } from "./notices.js";
import { $ } from "./page.js";
import { Run } from "./run.js";
import { addressOf, CODE, keepSettings, keptSettings, sharedDraft } from "./share.js";
import { compared, comparedWithSettingsOf, VARIANTS } from "./variants.js";
import { Viewer } from "./viewer.js";

/** @typedef {import("./recording.js").Recording} Recording */

const NARROW = "(max-width: 60rem)";
/** The inspector shows so many alternatives. */
const TOP_LOGPROBS = 5;

const state = {
  /** @type {Run[]} the runs on the page, one or two */
  runs: [],
  /** @type {string[]} */
  titles: [],
  /** @type {{recording: Recording, frame: number} | null} where a branch leaves its parent, until it is shown */
  branching: null,
  /** whether the server made what is shown, so that branches can leave it */
  isOwn: false,
  /** @type {AbortController | null} set while requests run */
  request: null,
  /** @type {Record<string, any> | null} the body of the run before, to compare with */
  lastBody: null,
  /** @type {string | null} the message of a chat under way; its answer becomes a turn */
  question: null,
  /** whether that answer takes the place of the last one */
  isAgain: false,
  /** the variant that the runs were compared with */
  compare: "",
};

const viewer = new Viewer(document, { onKeepSeed: keepSeed, onSettled: keepExchange, onBranch: branch, tokenize: tokensOf });
const branches = new Branches(({ recordings, titles }) => {
  state.titles = titles;
  viewer.open(recordings, titles);
});

// --- requests ----------------------------------------------------------------------------------------------------

function generate() {
  if (state.request || !form.isReady()) return;
  keepExchange();
  const draft = form.readDraft();
  ask(draft, chatTurns(), { isAgain: false });
}

/** Ask the last question again, with the settings as they are now; its answer stays until the new one is there. */
function askAgain() {
  keepExchange();
  const question = chatTurns().at(-2)?.content ?? "";
  if (state.request || !form.isReady(question)) return;
  ask({ ...form.readDraft(), prompt: question }, chatTurns().slice(0, -2), { isAgain: true });
}

/**
 * @param {import("./form.js").Draft} draft
 * @param {import("./form.js").Turn[]} turns
 * @param {{isAgain: boolean}} options
 */
function ask(draft, turns, { isAgain }) {
  keepSettings(draft.settings);
  const reported = { top_logprobs: TOP_LOGPROBS, include_predictions: viewer.view === "prediction" };
  const body = { ...reported, ...form.bodyOf(draft, turns) };
  const { bodies, titles } = chosenRuns(body);
  Object.assign(state, { lastBody: body, question: draft.mode === "chat" ? draft.prompt : null, isAgain });
  begin(bodies.map((one) => new Run(one)), titles);
}

/** @param {Record<string, any>} body */
function chosenRuns(body) {
  state.compare = $("compare").value;
  if (state.compare === "last" && state.lastBody) return comparedWithSettingsOf(body, state.lastBody);
  if (Object.hasOwn(VARIANTS, state.compare)) return compared(body, VARIANTS[state.compare]);
  return { bodies: [body], titles: ["Canvas"] };
}

/**
 * @param {Run[]} runs
 * @param {string[]} titles
 */
function begin(runs, titles) {
  Object.assign(state, { runs, titles, branching: null, isOwn: true });
  $("panes").replaceChildren();
  $("replay").hidden = true;
  $("outputs").hidden = true;
  follow();
}

/**
 * Go on from a frame that was changed.
 * @param {Recording} recording
 * @param {number} frame
 * @param {import("./editor.js").Edits} edits
 */
function branch(recording, frame, edits) {
  if (state.request) return;
  keepExchange();
  const body = { fork: { id: recording.start.id, step: recording.figuresAt(frame).stepsRun, ...edits } };
  Object.assign(state, { runs: [new Run(body, recording)], branching: { recording, frame } });
  follow();
}

/** Follow all runs that are not done yet, from their beginning or from where they broke off. */
async function follow() {
  const { runs } = state;
  const request = new AbortController();
  state.request = request;
  hideNotice();
  showRunning(true);
  const failures = await Promise.all(runs.filter((run) => !run.recording?.done).map((run) => failureOf(run, request)));
  // A failure aborts the other run: its own reason is the one to show.
  const failure = failures.find((error) => error && !isAbort(error)) ?? failures.find(Boolean);
  state.request = null;
  showRunning(false);
  if (failure) {
    showFailure(failure, runs.some((run) => run.canResume));
    viewer.cut();
  } else finish();
}

/**
 * @param {Run} run
 * @param {AbortController} request
 * @returns {Promise<unknown>} what ended the run before its end; it ends the other one too
 */
async function failureOf(run, request) {
  try {
    await run.follow(request.signal, receive);
  } catch (error) {
    request.abort();
    return error;
  }
}

/** Something came in: show the canvases, once all are there. */
function receive() {
  const recordings = state.runs.map((run) => run.recording);
  if (!recordings.every((recording) => recording !== null)) return;
  if ($("stage").classList.contains("is-waiting")) showAnswering(/** @type {Recording[]} */ (recordings));
  viewer.update();
}

/** @param {Recording[]} recordings */
function showAnswering(recordings) {
  showStatus("Denoising…");
  $("stage").classList.remove("is-waiting");
  if (viewer.recordings.includes(recordings[0])) viewer.goOn();
  else if (state.branching) showBranch(recordings[0], state.branching);
  else {
    branches.reset({ recordings, titles: state.titles });
    viewer.follow(recordings, state.titles);
  }
  $("viewer").scrollIntoView({ block: "nearest" });
}

/**
 * @param {Recording} recording
 * @param {{recording: Recording, frame: number}} from
 */
function showBranch(recording, from) {
  const { recordings, titles } = branches.add(from.recording, recording);
  Object.assign(state, { titles, branching: null });
  viewer.follow(recordings, titles, recordings.includes(from.recording) ? from : null);
}

function finish() {
  const recordings = state.runs.flatMap((run) => run.recording ?? []);
  const usages = recordings.map((recording) => recording.done?.usage);
  const counts = usages.map((usage) => `${count(usage?.completion_tokens, "token")} in ${count(usage?.denoising_steps, "step")}`);
  showStatus(`Done: ${counts.join(" and ")}`);
  recordings.forEach((recording) => showMismatches(recording.mismatches()));
  $("outputs").hidden = false;
}

/** A finished answer becomes a turn of the chat, once it was watched to its end. */
function keepExchange() {
  const recording = state.runs[0]?.recording;
  if (state.question === null || !recording?.done) return;
  if (state.isAgain) takeBackExchange();
  addExchange(state.question, recording.answer.said);
  const isAsked = form.readDraft().mode === "chat" && $("prompt").value === state.question;
  if (isAsked && !state.isAgain) $("prompt").value = "";
  state.question = null;
  form.followMode();
}

/** @param {boolean} isRunning  from the request's first byte out to its last byte in */
function showRunning(isRunning) {
  const { activeElement: focused } = document;
  const hadFocus = [$("generate"), $("stop"), $("resume"), $("again")].includes(focused) || focused?.matches("[data-part=edit-go]");
  $("generate").disabled = isRunning;
  $("stop").disabled = !isRunning;
  $("open").disabled = isRunning;
  viewer.canBranch = !isRunning && state.isOwn;
  branches.isBusy = isRunning;
  // Without scrolling: the reader watches the canvas.
  if (hadFocus) $(isRunning ? "stop" : "generate").focus({ preventScroll: true });
  if (isRunning) showStatus("Waiting for the server…");
  $("stage").classList.toggle("is-waiting", isRunning);
}

// --- keep, share, take away --------------------------------------------------------------------------------------

/** @param {number} seed */
function keepSeed(seed) {
  $("seed").value = seed;
  keepSettings(form.readDraft().settings);
}

async function copy() {
  const { top_logprobs: _, include_predictions: __, fork: ___, ...body } = viewer.recordings[0]?.request ?? {};
  const kind = $("copy-as").value;
  $("copied").textContent = kind === "link" ? address(body) : CODE[kind](body, modelName());
  $("copied").hidden = false;
  showStatus(await copyFrom($("copied")));
}

/** @param {Record<string, any>} body  of the run that is shown */
function address(body) {
  const draft = form.draftOf(body);
  const settings = form.changedSettings(draft.settings);
  return addressOf({ ...draft, settings }, { view: viewer.view, compare: state.compare });
}

async function exportRuns() {
  showStatus("Writing the file…");
  try {
    await save($("export-as").value, viewer.recordings, state.titles);
    showStatus("Saved");
  } catch (error) {
    showNotice(`The file could not be written: ${/** @type {Error} */ (error).message}.`, { isError: true });
    showStatus("Failed");
  }
}

async function openFile() {
  const [file] = $("open").files;
  if (!file || state.request) return;
  hideNotice();
  try {
    const { recordings, titles } = await open(file);
    keepExchange();
    Object.assign(state, { runs: [], titles, compare: "", isOwn: false });
    viewer.canBranch = false;
    branches.reset({ recordings, titles });
    viewer.open(recordings, titles);
    $("outputs").hidden = false;
    showStatus(`Opened ${file.name}`);
  } catch (error) {
    showNotice(`${file.name} cannot be shown: ${/** @type {Error} */ (error).message}.`, { isError: true });
  }
  $("open").value = "";
}

// --- examples and shared addresses -------------------------------------------------------------------------------

/** @param {import("./examples.js").Example} example */
function fillIn({ draft, view, compare = "", look }) {
  form.writeDraft({ mode: "chat", prompt: "", system: "", pins: [], settings: {}, ...draft });
  show(view, compare);
  $("look").textContent = look;
  $("look").hidden = false;
}

/**
 * @param {string} view
 * @param {string} compare
 */
function show(view, compare) {
  const control = /** @type {HTMLInputElement | null} */ (document.querySelector(`[name="view"][value="${CSS.escape(view)}"]`));
  if (control) control.click();
  $("compare").value = Object.hasOwn(VARIANTS, compare) ? compare : "";
}

function showExamples() {
  $("examples").replaceChildren(...EXAMPLES.map((example) => {
    const item = document.createElement("li");
    const [fill, run] = [document.createElement("button"), document.createElement("button")];
    const [title, look] = [document.createElement("strong"), document.createElement("span")];
    [title.textContent, look.textContent] = [example.title, example.look];
    Object.assign(fill, { type: "button", className: "example" });
    fill.append(title, " ", look);
    fill.addEventListener("click", () => {
      fillIn(example);
      $("prompt").focus();
    });
    Object.assign(run, { type: "button", className: "run", textContent: "▶" });
    run.setAttribute("aria-label", `Run: ${example.title}`);
    run.addEventListener("click", () => runExample(example));
    item.append(fill, run);
    return item;
  }));
}

/** An example begins a chat of its own. @param {import("./examples.js").Example} example */
function runExample(example) {
  if (state.request) return;
  state.question = null;
  clearChat();
  fillIn(example);
  generate();
}

function restore() {
  const shared = sharedDraft(location.hash);
  const kept = keptSettings();
  if (!shared) return kept && form.writeSettings(kept);
  form.writeDraft(shared.draft);
  show(shared.view, shared.compare);
  // From here on the form is the reader's: what is changed must survive a reload.
  history.replaceState(null, "", location.pathname + location.search);
  keepSettings(form.readDraft().settings);
}

// --- wiring ------------------------------------------------------------------------------------------------------

/** @param {SubmitEvent} event */
function onSubmit(event) {
  event.preventDefault();
  generate();
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  if (event.isComposing) return;
  if (event.key === "Escape") state.request?.abort();
  else if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && $("request").contains(event.target)) generate();
  else if (event.code === "KeyG" && event.altKey && form.readDraft().mode === "infilling") form.insertGap();
  else return;
  event.preventDefault();
}

/** A field that is corrected is no longer wrong. @param {Event} event */
function onInput({ target }) {
  const field = /** @type {HTMLInputElement} */ (target);
  if (field === $("prompt")) form.showGaps();
  if (field === $("prompt") || field === $("more")) field.setCustomValidity("");
  if (field.getAttribute("aria-invalid")) hideNotice();
}

/** @param {Event} event */
function onChange({ target }) {
  const field = /** @type {HTMLInputElement} */ (target);
  if (field.name === "mode") form.followMode();
  if (field.name === "method") form.followMethod();
  if (field.closest(".settings") && field.validity.valid) keepSettings(form.readDraft().settings);
}

function wire() {
  $("request").addEventListener("submit", onSubmit);
  $("request").addEventListener("input", onInput);
  $("request").addEventListener("change", onChange);
  document.addEventListener("keydown", onKey);
  $("insert-gap").addEventListener("click", form.insertGap);
  $("add-pin").addEventListener("click", form.addPin);
  $("stop").addEventListener("click", () => state.request?.abort());
  $("resume").addEventListener("click", follow);
  $("again").addEventListener("click", askAgain);
  $("new-chat").addEventListener("click", () => {
    state.question = null;
    clearChat();
    $("prompt").focus();
  });
  $("defaults").addEventListener("click", () => {
    form.writeSettings({});
    keepSettings({});
  });
  $("copy").addEventListener("click", copy);
  $("export").addEventListener("click", exportRuns);
  addEventListener("hashchange", restore);
  $("open").addEventListener("change", openFile);
}

wire();
showExamples();
restore();
form.followMode();
form.followMethod();
$("settings").open = !matchMedia(NARROW).matches;
$("examples-panel").open = !matchMedia(NARROW).matches;
startHeader();
