/** Says what happened to a request: in the status line and, if the reader should know more, in a notice. */

import { ApiError } from "./api.js";
import { clearInvalid, markInvalid } from "./form.js";
import { askForKey, checkReadiness } from "./header.js";
import { $ } from "./page.js";

/** @param {string} text */
export function showStatus(text) {
  $("status").textContent = text;
}

/**
 * @param {string} message
 * @param {{canResume?: boolean, isError?: boolean}} [options]
 */
export function showNotice(message, { canResume = false, isError = false } = {}) {
  $("notice-text").textContent = message;
  $("resume").hidden = !canResume;
  $("notice").classList.toggle("is-error", isError);
  $("notice").hidden = false;
}

export function hideNotice() {
  $("notice").hidden = true;
  clearInvalid();
}

/**
 * @param {unknown} error  what ended the stream
 * @param {boolean} canResume
 */
export function showFailure(error, canResume) {
  checkReadiness();
  if (isAbort(error)) showStopped(canResume);
  else if (error instanceof ApiError) showApiError(error, canResume);
  else if (error instanceof TypeError) showLostConnection(canResume);
  else showUnreadable(error);
}

/** Whether the reader ended it. @param {unknown} error */
export function isAbort(error) {
  return error instanceof DOMException && error.name === "AbortError";
}

/**
 * Checks that the stream rebuilt the server's canvas exactly; if it did not, the page says so.
 * @param {number[]} positions
 */
export function showMismatches(positions) {
  if (positions.length === 0) return;
  showNotice(`The replayed canvas differs from the server's at ${positions.length} position(s), the first is ${positions[0]}.`);
}

/** @param {boolean} canResume */
function showStopped(canResume) {
  showStatus("Stopped");
  if (canResume) showNotice("Stopped. The server keeps this canvas for a minute.", { canResume });
}

/**
 * @param {ApiError} error
 * @param {boolean} canResume
 */
function showApiError(error, canResume) {
  showStatus("Failed");
  showNotice(error.message, { canResume, isError: true });
  if (error.status === 401) askForKey();
  else if (error.param) markInvalid(error.param);
}

/** @param {boolean} canResume */
function showLostConnection(canResume) {
  const hint = canResume ? "Resume within a minute to continue from here, or generate again." : "Check that it runs, then generate again.";
  showStatus("Disconnected");
  showNotice(`The connection to the server was lost. ${hint}`, { canResume, isError: true });
}

/** What came in was not what the server sends: something in between changed it. @param {unknown} error */
function showUnreadable(error) {
  showStatus("Failed");
  showNotice(`The server's answer cannot be read: ${error instanceof Error ? error.message : error}`, { isError: true });
}
