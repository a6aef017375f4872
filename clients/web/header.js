/** The masthead: the served model, its readiness, and a field for the key if the server requires one. */

import { ApiError, fetchModel, fetchReadiness, keepApiKey } from "./api.js";
import { $ } from "./page.js";

const READINESS_INTERVAL_MS = 15_000;

export function startHeader() {
  $("key-form").addEventListener("submit", useKey);
  setInterval(showReadiness, READINESS_INTERVAL_MS);
  return Promise.all([showModel(), showReadiness()]);
}

export function askForKey() {
  $("key-form").hidden = false;
  $("api-key").focus();
}

async function showModel() {
  try {
    const model = await fetchModel();
    $("model-name").textContent = model.id;
    $("model-facts").textContent = `${model.max_model_len} positions, ${model.vocab_size} tokens`;
    $("max_tokens").max = model.max_model_len;
  } catch (error) {
    $("model-name").textContent = "unknown model";
    if (error instanceof ApiError && error.status === 401) askForKey();
  }
}

async function showReadiness() {
  const readiness = await fetchReadiness();
  $("health").dataset.state = readiness;
  $("health-text").textContent = readiness;
}

/** @param {SubmitEvent} event */
function useKey(event) {
  event.preventDefault();
  keepApiKey($("api-key").value);
  $("key-form").hidden = true;
  $("notice").hidden = true;
  showModel();
}
