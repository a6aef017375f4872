/** Numbers of things, in words. */

/**
 * @param {number | undefined} number
 * @param {string} singular
 * @param {string} [plural]
 */
export function count(number, singular, plural = `${singular}s`) {
  return `${number} ${number === 1 ? singular : plural}`;
}
