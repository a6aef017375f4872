/** Settings that survive a reload, addresses that carry a prompt and its settings, and requests as code. */

import { hasApiKey } from "./api.js";

/** @typedef {import("./form.js").Draft} Draft */

const SETTINGS_ITEM = "llada-settings";
const BOOLEANS = { true: true, false: false };

/** @param {Draft["settings"]} settings */
export function keepSettings(settings) {
  try {
    localStorage.setItem(SETTINGS_ITEM, JSON.stringify(settings));
  } catch {
    // Browsers may forbid it, in private windows for example: the settings then last as long as the page.
  }
}

/** @returns {Draft["settings"] | null} */
export function keptSettings() {
  try {
    const kept = JSON.parse(localStorage.getItem(SETTINGS_ITEM) ?? "null");
    return kept !== null && typeof kept === "object" ? kept : null;
  } catch {
    return null;
  }
}

/**
 * An address that opens the page with this prompt; what follows "#" is never sent to a server.
 * @param {Draft} draft
 * @param {{view: string, compare: string}} shown
 */
export function addressOf(draft, { view, compare }) {
  const fields = new URLSearchParams({ mode: draft.mode, prompt: draft.prompt, view });
  if (draft.mode === "chat" && draft.system) fields.set("system", draft.system);
  if (compare) fields.set("compare", compare);
  for (const { position, text } of draft.pins) fields.append("pin", `${position}:${text}`);
  for (const [name, value] of Object.entries(draft.settings)) fields.set(`set.${name}`, String(value));
  return `${location.origin}${location.pathname}#${fields}`;
}

/**
 * @param {string} hash
 * @returns {{draft: Draft, view: string, compare: string} | null} null if the address carries no prompt
 */
export function sharedDraft(hash) {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  const prompt = fields.get("prompt");
  if (prompt === null) return null;
  const settings = [...fields].filter(([name]) => name.startsWith("set.")).map(([name, value]) => [name.slice(4), settingOf(value)]);
  const pins = fields.getAll("pin").map((pin) => {
    const colon = pin.indexOf(":");
    return { position: Number(pin.slice(0, colon)), text: pin.slice(colon + 1) };
  });
  const mode = /** @type {Draft["mode"]} */ (fields.get("mode") ?? "chat");
  const draft = { mode, prompt, system: fields.get("system") ?? "", pins, settings: Object.fromEntries(settings) };
  return { draft, view: fields.get("view") ?? "confidence", compare: fields.get("compare") ?? "" };
}

/** @type {Record<string, (body: Record<string, any>, model: string) => string>} */
export const CODE = {
  curl: (body) => {
    const key = hasApiKey() ? ' -H "Authorization: Bearer $LLADA_API_KEY"' : "";
    const data = JSON.stringify(body).replaceAll("'", "'\\''");
    return `curl -N ${server()}/v1/denoise${key} \\\n  -H 'Content-Type: application/json' -d '${data}'\n`;
  },
  python: (body) => {
    const { messages, prompt, canvas, ...fields } = body;
    const asked = messages ? `messages=${python(messages)}` : canvas ? `canvas=${pythonCanvas(canvas)}` : python(prompt);
    const names = canvas ? "Gap, LLaDAClient, Replay" : "LLaDAClient, Replay";
    return `from clients import ${names}\n\nclient = LLaDAClient(${python(server())})\nreplay = Replay.of(client.denoise(${[asked, ...keywords(fields)].join(", ")}))\nprint(replay.done.text)\n`;
  },
  openai: (body, model) => {
    const { messages, prompt, canvas, max_tokens, temperature, seed, top_logprobs: _, include_predictions: __, ...extra } = body;
    if (canvas || extra.constraints) return "# The OpenAI API has no gaps and no pinned words: copy this request as curl or Python.\n";
    const fields = Object.fromEntries(Object.entries({ max_tokens, temperature, seed }).filter(([, value]) => value !== undefined));
    const route = messages ? "chat.completions" : "completions";
    const asked = messages ? `messages=${python(messages)}` : `prompt=${python(prompt)}`;
    const call = [`model=${python(model)}`, asked, ...keywords(fields), `extra_body=${python(extra)}`].join(", ");
    const text = messages ? "message.content" : "text";
    return `${hasApiKey() ? "import os\n\n" : ""}from openai import OpenAI\n\nclient = OpenAI(base_url=${python(`${server()}/v1`)}, api_key=${hasApiKey() ? 'os.environ["LLADA_API_KEY"]' : '"none"'})\nanswer = client.${route}.create(${call})\nprint(answer.choices[0].${text})\n`;
  },
};

function server() {
  return new URL(".", location.href).href.replace(/\/$/, "");
}

/** @param {Record<string, any>} fields */
function keywords(fields) {
  return Object.entries(fields).map(([name, value]) => `${name}=${python(value)}`);
}

/** @param {(string | {mask: number})[]} canvas */
function pythonCanvas(canvas) {
  return `[${canvas.map((part) => (typeof part === "string" ? python(part) : `Gap(${part.mask})`)).join(", ")}]`;
}

/** JSON as Python writes it: what is text in JSON is the same text in Python. @param {any} value @returns {string} */
function python(value) {
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([key, one]) => `${python(key)}: ${python(one)}`).join(", ")}}`;
  return JSON.stringify(value);
}

/** @param {string} text */
function settingOf(text) {
  if (Object.hasOwn(BOOLEANS, text)) return BOOLEANS[/** @type {keyof typeof BOOLEANS} */ (text)];
  return text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}
