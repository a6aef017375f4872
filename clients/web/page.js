/** Access to the elements that index.html names. */

/** @param {string} id @returns {any} */
export const $ = (id) => document.getElementById(id);
