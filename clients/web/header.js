/** The masthead: the served model, its readiness, and a field for the key if the server requires one. */

import { ApiError, fetchModel, fetchReadiness, hasApiKey, keepApiKey } from "./api.js";
import { $ } from "./page.js";

const READINESS_INTERVAL_MS = 15_000;
// A server that loads its model is asked more often.
const LOADING_INTERVAL_MS = 1_000;

let isModelShown = false;
let nextCheck = 0;

export function startHeader() {
  $("key-form").addEventListener("submit", useKey);
  $("api-key").addEventListener("input", () => $("api-key").removeAttribute("aria-invalid"));
  return Promise.all([showModel(), checkReadiness()]);
}

/** The served model's name, as far as it is known. */
export function modelName() {
  return $("model-name").textContent;
}

/** Shows the field for the key, and whether the server requires one or refused the one it was sent. */
export function askForKey() {
  if (hasApiKey()) $("api-key").setAttribute("aria-invalid", "true");
  showKeyForm(hasApiKey() ? "The server refused this key. Try another." : "This server requires a key.");
}

/** @param {string} message */
function showKeyForm(message) {
  $("key-message").textContent = message;
  $("key-form").hidden = false;
  $("api-key").select();
  $("api-key").focus();
}

async function showModel() {
  try {
    const model = await fetchModel();
    isModelShown = true;
    $("model-name").textContent = model.id;
    $("model-facts").textContent = `${model.max_model_len} positions, ${model.vocab_size} tokens`;
    $("max_tokens").max = model.max_model_len;
  } catch (error) {
    $("model-name").textContent = "unknown model";
    if (error instanceof ApiError && error.status === 401) askForKey();
  }
}

/** Ask whether the server is ready, now and from then on at intervals. */
export async function checkReadiness() {
  clearTimeout(nextCheck);
  const readiness = await fetchReadiness();
  $("health").dataset.state = readiness;
  $("health-text").textContent = readiness;
  if (readiness === "ready" && !isModelShown && $("key-form").hidden) showModel();
  clearTimeout(nextCheck);
  nextCheck = setTimeout(checkReadiness, readiness === "not ready" ? LOADING_INTERVAL_MS : READINESS_INTERVAL_MS);
}

/** @param {SubmitEvent} event */
function useKey(event) {
  event.preventDefault();
  if (!keepApiKey($("api-key").value.trim())) {
    showKeyForm("A key has only letters, digits and signs of ASCII, without spaces; this one has other characters.");
    $("api-key").setAttribute("aria-invalid", "true");
    return;
  }
  $("key-form").hidden = true;
  $("notice").hidden = true;
  $("prompt").focus();
  showModel();
}
