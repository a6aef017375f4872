/** Shows the result of a request: its final text and usage, or a notice that says what went wrong. */

import { ApiError } from "./api.js";
import { clearInvalid, markInvalid } from "./form.js";
import { askForKey } from "./header.js";
import { $ } from "./page.js";

/** @param {import("./recording.js").DoneData} done */
export function showResult({ text, finish_reason: reason, usage }) {
  const facts = {
    "Finish reason": reason,
    "Prompt tokens": usage.prompt_tokens,
    "Completion tokens": usage.completion_tokens,
    "Denoising steps": usage.denoising_steps,
    "Forward passes": usage.forward_passes,
  };
  $("text").textContent = text;
  $("usage").replaceChildren(...Object.entries(facts).map(([name, value]) => figure(name, String(value))));
  $("result").hidden = false;
  $("status").textContent = `Done: ${usage.completion_tokens} tokens in ${usage.denoising_steps} steps`;
}

/**
 * Checks that the stream rebuilt the server's canvas exactly; if it did not, the page says so.
 * @param {number[]} positions
 */
export function showMismatches(positions) {
  if (positions.length === 0) return;
  showNotice(`The replayed canvas differs from the server's at ${positions.length} position(s), the first is ${positions[0]}.`);
}

/**
 * @param {unknown} error  what ended the stream
 * @param {boolean} canResume
 */
export function showFailure(error, canResume) {
  if (error instanceof DOMException && error.name === "AbortError") showStopped(canResume);
  else if (error instanceof ApiError) showApiError(error);
  else if (error instanceof TypeError) showLostConnection(canResume);
  else throw error;
}

export function hideNotice() {
  $("notice").hidden = true;
  clearInvalid($("request"));
}

export async function copyText() {
  // Over plain HTTP the clipboard is available only on localhost; elsewhere the text is selected instead.
  getSelection()?.selectAllChildren($("text"));
  await navigator.clipboard?.writeText($("text").textContent);
  $("copy").textContent = navigator.clipboard ? "Copied" : "Selected";
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
}

/** @param {boolean} canResume */
function showStopped(canResume) {
  $("status").textContent = "Stopped";
  if (canResume) showNotice("Stopped. The server keeps this canvas for a minute.", { canResume });
}

/** @param {ApiError} error */
function showApiError(error) {
  $("status").textContent = "Failed";
  showNotice(error.message, { isError: true });
  if (error.status === 401) askForKey();
  else if (error.param) markInvalid($("request"), error.param);
}

/** @param {boolean} canResume */
function showLostConnection(canResume) {
  const hint = canResume ? "Resume within a minute to continue from here, or generate again." : "Check that it runs, then generate again.";
  $("status").textContent = "Disconnected";
  showNotice(`The connection to the server was lost. ${hint}`, { canResume, isError: true });
}

/**
 * @param {string} message
 * @param {{canResume?: boolean, isError?: boolean}} [options]
 */
function showNotice(message, { canResume = false, isError = false } = {}) {
  $("notice-text").textContent = message;
  $("resume").hidden = !canResume;
  $("notice").classList.toggle("is-error", isError);
  $("notice").hidden = false;
}

/**
 * @param {string} name
 * @param {string} value
 */
function figure(name, value) {
  const [box, term, description] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
  term.textContent = name;
  description.textContent = value;
  box.append(term, description);
  return box;
}
