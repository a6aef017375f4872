/** Copies text to the clipboard. */

/**
 * Selects an element's text and copies it; browsers refuse the second over plain HTTP, but on localhost.
 * @param {HTMLElement} element
 * @returns {Promise<"Copied" | "Selected">}
 */
export async function copyFrom(element) {
  getSelection()?.selectAllChildren(element);
  try {
    await navigator.clipboard.writeText(element.textContent ?? "");
    return "Copied";
  } catch {
    return "Selected";
  }
}
