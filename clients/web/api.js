/** The server's HTTP interface. Addresses are relative, so the page also works below a root path. */

import { readEvents } from "./sse.js";

/** @typedef {import("./sse.js").SseEvent} SseEvent */

const KEY_ITEM = "llada-api-key";

/** @type {string | null} the key, where the browser forbids to keep anything */
let keyInMemory = null;

/** An error response of the server: `{"error": {message, type, param, code}}`. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {{status?: number, param?: string | null}} details
   */
  constructor(message, { status = 0, param = null }) {
    super(message);
    this.status = status;
    this.param = param;
  }
}

/**
 * Keeps a key for this browser tab.
 * @param {string} key
 * @returns {boolean} whether it can be sent: a header has room for visible ASCII characters only
 */
export function keepApiKey(key) {
  const canBeSent = /^[!-~]+$/.test(key);
  if (canBeSent) rememberKey(key);
  return canBeSent;
}

export function hasApiKey() {
  return keptKey() !== null;
}

/** @param {string} key */
function rememberKey(key) {
  keyInMemory = key;
  try {
    sessionStorage.setItem(KEY_ITEM, key);
  } catch {
    // It lasts as long as the page.
  }
}

function keptKey() {
  try {
    return sessionStorage.getItem(KEY_ITEM);
  } catch {
    return keyInMemory;
  }
}

/**
 * @param {AbortSignal} [signal]
 * @returns {Promise<{id: string, max_model_len: number, vocab_size: number}>} the served model
 */
export async function fetchModel(signal) {
  const response = await request("v1/models", { signal });
  return (await response.json()).data[0];
}

/**
 * @param {string} text
 * @returns {Promise<{tokens: number[], token_strs: string[]}>}
 */
export async function fetchTokens(text) {
  const body = JSON.stringify({ prompt: text, add_special_tokens: false, return_token_strs: true });
  const response = await request("tokenize", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  return response.json();
}

/** @returns {Promise<"ready" | "not ready" | "unreachable">} */
export async function fetchReadiness() {
  try {
    return (await fetch("ready", { cache: "no-store" })).ok ? "ready" : "not ready";
  } catch {
    return "unreachable";
  }
}

/**
 * Starts a request and yields its denoising states.
 * @param {object} body
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<SseEvent>}
 */
export async function* denoise(body, signal) {
  const headers = { "Content-Type": "application/json" };
  yield* stream("v1/denoise", { method: "POST", headers, body: JSON.stringify(body), signal });
}

/**
 * Rejoins a request that this page left; the server parks it for a minute.
 * @param {string} id
 * @param {string} lastEventId
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<SseEvent>}
 */
export async function* rejoin(id, lastEventId, signal) {
  yield* stream(`v1/denoise/${encodeURIComponent(id)}`, { headers: { "Last-Event-ID": lastEventId }, signal });
}

/**
 * @param {string} path
 * @param {RequestInit} options
 * @returns {AsyncGenerator<SseEvent>}
 */
async function* stream(path, options) {
  const response = await request(path, options);
  if (response.body) yield* readEvents(response.body);
}

/**
 * @param {string} path
 * @param {RequestInit} options
 */
async function request(path, options) {
  const headers = new Headers(options.headers);
  const key = keptKey();
  if (key) headers.set("Authorization", `Bearer ${key}`);
  const response = await fetch(path, { ...options, headers });
  if (!response.ok) throw await readError(response);
  return response;
}

/** @param {Response} response */
async function readError(response) {
  const { status } = response;
  try {
    const { message, param } = (await response.json()).error;
    return new ApiError(message, { status, param });
  } catch {
    // A proxy in between may answer with something other than the server's JSON.
    return new ApiError(`HTTP ${status} ${response.statusText}`, { status });
  }
}
