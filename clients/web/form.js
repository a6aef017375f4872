/** The request form: its controls are named after the API's fields. */

/**
 * @param {HTMLFormElement} form
 * @returns {object} the body of a denoising request; a field left empty takes the server's default
 */
export function readRequest(form) {
  const prompt = control(form, "prompt").value;
  const isChat = new FormData(form).get("mode") === "chat";
  const input = isChat ? { messages: [{ role: "user", content: prompt }] } : { prompt };
  const settings = settingControls(form).filter((field) => field.value !== "");
  return { ...input, ...Object.fromEntries(settings.map((field) => [field.name, valueOf(field)])) };
}

/**
 * Disables the block length under `fixed_length`, which has one block: the server refuses any other length.
 * @param {HTMLFormElement} form
 */
export function followMethod(form) {
  control(form, "block_length").disabled = control(form, "method").value === "fixed_length";
}

/**
 * Highlights and focuses the field that an error names, if the form has it.
 * @param {HTMLFormElement} form
 * @param {string} param  such as `steps` or `messages[0].content`
 */
export function markInvalid(form, param) {
  const name = param.split(/[.[]/)[0];
  const field = control(form, name === "messages" ? "prompt" : name);
  if (!field) return;
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-errormessage", "notice-text");
  const panel = field.closest("details");
  if (panel) panel.open = true;
  field.focus();
}

/** @param {HTMLFormElement} form */
export function clearInvalid(form) {
  for (const field of form.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-errormessage");
  }
}

/**
 * @param {HTMLFormElement} form
 * @param {string} name
 */
function control(form, name) {
  return /** @type {HTMLInputElement} */ (form.elements.namedItem(name));
}

/**
 * @param {HTMLFormElement} form
 * @returns {HTMLInputElement[]} the settings that apply now
 */
function settingControls(form) {
  return [...form.querySelectorAll(/** @type {"input"} */ (".settings :is(input, select):enabled"))];
}

/** @param {HTMLInputElement} field */
function valueOf(field) {
  return field.type === "number" ? field.valueAsNumber : field.value;
}
