/** Marks the words in which two texts differ: those outside their longest common subsequence. */

const WORDS = /(\s+)/;
/** Texts with more words than this are not compared: the table has their product of entries. */
const MOST_WORDS = 2000;

/**
 * @param {string} text
 * @param {string} other
 * @returns {(Node | string)[]} the text, its words that the other lacks in `mark` elements
 */
export function markDifferences(text, other) {
  const [words, others] = [text, other].map((one) => one.split(WORDS).filter((part) => part.trim() !== ""));
  if (words.length > MOST_WORDS || others.length > MOST_WORDS) return [text];
  const isCommon = commonWords(words, others);
  let word = 0;
  return text.split(WORDS).filter(Boolean).map((part) => {
    if (part.trim() === "" || isCommon[word++]) return part;
    const mark = document.createElement("mark");
    mark.textContent = part;
    return mark;
  });
}

/**
 * @param {string[]} words
 * @param {string[]} others
 * @returns {boolean[]} for each word whether it belongs to the longest common subsequence
 */
function commonWords(words, others) {
  const width = others.length + 1;
  const longest = new Uint16Array((words.length + 1) * width);
  for (let i = words.length - 1; i >= 0; i--) {
    for (let j = others.length - 1; j >= 0; j--) {
      const skipped = Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
      longest[i * width + j] = words[i] === others[j] ? longest[(i + 1) * width + j + 1] + 1 : skipped;
    }
  }
  const isCommon = words.map(() => false);
  for (let i = 0, j = 0; i < words.length && j < others.length; ) {
    if (words[i] === others[j]) {
      isCommon[i++] = true;
      j++;
    } else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) i++;
    else j++;
  }
  return isCommon;
}
