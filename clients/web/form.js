/** The request form: what is asked, and the settings, whose controls are named after the API's fields. */

import { canvasOf, DEFAULT_GAP, gapLengths, textOf, withGapLength } from "./gaps.js";
import { $ } from "./page.js";

/**
 * @typedef {"chat" | "completion" | "infilling"} Mode
 * @typedef {{role: string, content: string}} Turn
 * @typedef {{position: number, text: string}} Pin
 * @typedef {object} Draft  what the form holds
 * @property {Mode} mode
 * @property {string} prompt
 * @property {string} system
 * @property {Pin[]} pins  words fixed at positions of the response
 * @property {Record<string, string | number | boolean>} settings  by the API's names; those left empty are absent
 */

const form = () => /** @type {HTMLFormElement} */ ($("request"));

/** @returns {Draft} */
export function readDraft() {
  const applied = settingControls().filter((field) => !field.disabled && isGiven(field));
  return {
    mode: /** @type {Mode} */ (new FormData(form()).get("mode")),
    prompt: $("prompt").value,
    system: $("system").value,
    pins: readPins(),
    settings: Object.fromEntries(applied.map((field) => [field.name, valueOf(field)])),
  };
}

/**
 * The settings that differ from their defaults.
 * @param {Draft["settings"]} settings
 * @returns {Draft["settings"]}
 */
export function changedSettings(settings) {
  const defaults = Object.fromEntries(settingControls().map((field) => [field.name, defaultOf(field)]));
  return Object.fromEntries(Object.entries(settings).filter(([name, value]) => String(value) !== defaults[name]));
}

/**
 * The draft that asks for this.
 * @param {Record<string, any>} body
 * @returns {Draft}
 */
export function draftOf({ messages = [], prompt = "", canvas, constraints = {}, ...fields }) {
  const names = settingControls().map((field) => field.name);
  const isNamed = ([name]) => names.includes(name);
  const others = Object.entries(fields).filter((field) => !isNamed(field));
  const more = others.length ? { more: JSON.stringify(Object.fromEntries(others)) } : {};
  return {
    mode: canvas ? "infilling" : messages.length ? "chat" : "completion",
    prompt: canvas ? textOf(canvas) : messages.length ? messages.at(-1).content : prompt,
    system: messages[0]?.role === "system" ? messages[0].content : "",
    pins: Object.entries(constraints).map(([position, text]) => ({ position: Number(position), text: String(text) })),
    settings: { ...Object.fromEntries(Object.entries(fields).filter(isNamed)), ...more },
  };
}

/** Fill the form; settings that the draft leaves out take their defaults. @param {Draft} draft */
export function writeDraft(draft) {
  modeControl(draft.mode).checked = true;
  $("prompt").value = draft.prompt;
  $("system").value = draft.system;
  $("system-panel").open = draft.system !== "";
  writeSettings(draft.settings);
  $("pins").replaceChildren(...draft.pins.map(pinRow));
  $("pins-panel").open = draft.pins.length > 0;
  followMode();
}

/** @param {Draft["settings"]} settings */
export function writeSettings(settings) {
  for (const field of settingControls()) {
    const value = Object.hasOwn(settings, field.name) ? settings[field.name] : undefined;
    if (field.type === "checkbox") field.checked = value === true;
    else field.value = value === undefined ? defaultOf(field) : String(value);
    // A select shows nothing if it lacks the value.
    if (field.value === "" && field.tagName === "SELECT") field.value = defaultOf(field);
  }
  followMethod();
}

/**
 * @param {Draft} draft
 * @param {Turn[]} turns  the chat so far
 * @returns {Record<string, any>} the body of a denoising request; a field left empty takes the server's default
 */
export function bodyOf(draft, turns) {
  const { mode, prompt, system, pins } = draft;
  const { more = "{}", ...named } = draft.settings;
  const settings = { ...named, ...JSON.parse(String(more)) };
  if (mode === "infilling") {
    const { max_tokens: _, ...others } = settings;
    return { canvas: canvasOf(prompt), ...others };
  }
  const constraints = pins.length ? { constraints: Object.fromEntries(pins.map((pin) => [pin.position, pin.text])) } : {};
  if (mode === "completion") return { prompt, ...settings, ...constraints };
  const opening = system.trim() === "" ? [] : [{ role: "system", content: system }];
  return { messages: [...opening, ...turns, { role: "user", content: prompt }], ...settings, ...constraints };
}

/**
 * Whether the form can be sent; if not, the browser says at which field.
 * @param {string} [question]  asked in place of what the form holds
 */
export function isReady(question) {
  const isInfilling = readDraft().mode === "infilling";
  const prompt = question ?? $("prompt").value;
  const problem = prompt.trim() === "" ? "Write a prompt first." : "";
  const gapProblem = isInfilling && gapLengths(prompt).length === 0 ? "Insert a gap first." : "";
  $("prompt").required = question === undefined;
  $("prompt").setCustomValidity(problem || gapProblem);
  $("more").setCustomValidity(isObject($("more").value) ? "" : 'Write a JSON object, as {"cache": "dual"}.');
  markDoublePins();
  // The browser cannot point at a field that is folded away.
  for (const field of form().querySelectorAll(":invalid")) unfold(field);
  const isValid = form().reportValidity();
  $("prompt").required = true;
  return isValid;
}

/** Two words cannot stand at one position. */
function markDoublePins() {
  const positions = [...$("pins").querySelectorAll("input[type=number]")];
  positions.forEach((field, i) => {
    const isDouble = positions.slice(0, i).some((other) => other.value === field.value);
    field.setCustomValidity(isDouble ? "Another word is pinned to this position." : "");
  });
}

/** @param {Element} field */
function unfold(field) {
  const panel = field.closest("details");
  if (panel) panel.open = true;
}

/** Show what belongs to the chosen mode: a chat's system prompt, the gaps of an infilling. */
export function followMode() {
  const { mode } = readDraft();
  $("prompt-label").textContent = mode === "infilling" ? "Text with gaps" : mode === "chat" ? "Message" : "Prompt";
  $("chat").hidden = mode !== "chat" || $("turns").childElementCount === 0;
  $("system-panel").hidden = mode !== "chat";
  $("gap-panel").hidden = mode !== "infilling";
  $("pins-panel").hidden = mode === "infilling";
  $("max_tokens").disabled = mode === "infilling";
  $("prompt").setCustomValidity("");
  showGaps();
}

/** `fixed_length` has one block: the server refuses any other length beside it. */
export function followMethod() {
  control("block_length").disabled = control("method").value === "fixed_length";
}

/** Put a gap where the cursor is, or in place of what is selected. */
export function insertGap() {
  const field = $("prompt");
  field.setRangeText(`[[${DEFAULT_GAP}]]`, field.selectionStart, field.selectionEnd, "end");
  showGaps();
  field.focus();
}

/** A field for the length of every gap in the text. */
export function showGaps() {
  const lengths = gapLengths($("prompt").value);
  const rows = $("gaps").querySelectorAll("input");
  // A field that is being typed in stays.
  if (rows.length !== lengths.length) $("gaps").replaceChildren(...lengths.map(gapField));
  else rows.forEach((/** @type {HTMLInputElement} */ row, /** @type {number} */ i) => {
    if (row !== document.activeElement) row.value = String(lengths[i]);
  });
}

export function addPin() {
  const positions = readPins().map((pin) => pin.position);
  const row = pinRow({ position: positions.length ? Math.max(...positions) + 8 : 0, text: "" });
  $("pins").append(row);
  /** @type {HTMLInputElement} */ (row.querySelector("input[type=text]")).focus();
}

/**
 * Highlights and focuses the field that an error names, if the form has it.
 * @param {string} param  such as `steps` or `messages[0].content`
 */
export function markInvalid(param) {
  const name = param.split(/[.[]/)[0];
  const field = control(["messages", "canvas"].includes(name) ? "prompt" : name);
  if (!field?.setAttribute) return;
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-errormessage", "notice");
  unfold(field);
  field.focus();
}

/** @param {ParentNode} [within] */
export function clearInvalid(within = form()) {
  for (const field of within.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-errormessage");
  }
}

/** @param {string} text  JSON, or nothing */
function isObject(text) {
  if (text === "") return true;
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" && !Array.isArray(value);
  } catch {
    return false;
  }
}

/** @returns {Pin[]} */
function readPins() {
  const rows = [...$("pins").children].map((row) => row.querySelectorAll("input"));
  const pins = rows.map(([position, text]) => ({ position: position.valueAsNumber, text: text.value }));
  return pins.filter((pin) => pin.text !== "" && Number.isInteger(pin.position));
}

/** @param {Pin} pin */
function pinRow({ position, text }) {
  const row = document.createElement("li");
  const remove = document.createElement("button");
  Object.assign(remove, { type: "button", className: "small", textContent: "Remove" });
  remove.addEventListener("click", () => {
    row.remove();
    $("add-pin").focus();
  });
  row.append(
    input("Position", { type: "number", min: "0", step: "1", value: String(position), required: true }),
    input("Text", { type: "text", value: text, placeholder: "with the space before it" }),
    remove,
  );
  return row;
}

/**
 * @param {number} length
 * @param {number} index
 */
function gapField(length, index) {
  const label = input(`Gap ${index + 1}`, { type: "number", min: "1", step: "1", value: String(length), required: true });
  const field = /** @type {HTMLInputElement} */ (label.querySelector("input"));
  field.addEventListener("input", () => {
    if (field.validity.valid) $("prompt").value = withGapLength($("prompt").value, index, field.valueAsNumber);
  });
  return label;
}

/**
 * @param {string} name
 * @param {Partial<HTMLInputElement>} properties
 */
function input(name, properties) {
  const label = document.createElement("label");
  const field = Object.assign(document.createElement("input"), properties);
  label.className = "inline";
  label.append(name, " ", field);
  return label;
}

/** @param {string} mode */
function modeControl(mode) {
  const found = form().querySelector(`[name="mode"][value="${CSS.escape(mode)}"]`);
  return /** @type {HTMLInputElement} */ (found ?? form().querySelector('[name="mode"]'));
}

/** @param {string} name */
function control(name) {
  return /** @type {HTMLInputElement} */ (form().elements.namedItem(name));
}

/** @returns {HTMLInputElement[]} */
function settingControls() {
  return [...form().querySelectorAll(/** @type {"input"} */ (".settings :is(input, select)"))];
}

/** @param {HTMLInputElement} field */
function isGiven(field) {
  return field.type === "checkbox" ? field.checked : field.value !== "";
}

/** @param {HTMLInputElement} field */
function valueOf(field) {
  if (field.type === "checkbox") return true;
  return field.type === "number" ? field.valueAsNumber : field.value;
}

/** @param {HTMLInputElement | HTMLSelectElement} field */
function defaultOf(field) {
  if (field instanceof HTMLSelectElement) return (field.querySelector("[selected]") ?? field.options[0]).value;
  return field.defaultValue;
}
