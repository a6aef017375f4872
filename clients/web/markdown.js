/** Renders the Markdown that models write, as elements: text never becomes HTML, and nothing is loaded. */

const FENCE = /^```/;
const HEADING = /^(#{1,6})\s+(.*)$/;
const BULLET = /^\s*[-*+]\s+(.*)$/;
const NUMBERED = /^\s*\d+[.)]\s+(.*)$/;
const INLINE = /(`[^`]+`|\*\*[^*]+\*\*|\*[^*\s][^*]*\*|\[[^\]]*\]\(https?:\/\/[^\s)]+\))/;
const LINK = /^\[([^\]]*)\]\((https?:\/\/[^\s)]+)\)$/;

/**
 * @param {string} text
 * @returns {HTMLElement[]}
 */
export function renderMarkdown(text) {
  const lines = text.split("\n");
  const blocks = [];
  for (let i = 0; i < lines.length; ) {
    const taken = takeBlock(lines, i);
    if (taken.block) blocks.push(taken.block);
    i = taken.next;
  }
  return blocks;
}

/**
 * @param {string[]} lines
 * @param {number} i
 * @returns {{block: HTMLElement | null, next: number}}
 */
function takeBlock(lines, i) {
  if (lines[i].trim() === "") return { block: null, next: i + 1 };
  if (FENCE.test(lines[i])) return takeCode(lines, i);
  const heading = HEADING.exec(lines[i]);
  // The page has headings of its own above these.
  if (heading) return { block: element(`h${Math.min(heading[1].length + 2, 6)}`, inline(heading[2])), next: i + 1 };
  if (BULLET.test(lines[i])) return takeList(lines, i, "ul", BULLET);
  if (NUMBERED.test(lines[i])) return takeList(lines, i, "ol", NUMBERED);
  return takeParagraph(lines, i);
}

/**
 * @param {string[]} lines
 * @param {number} i
 */
function takeCode(lines, i) {
  const last = lines.findIndex((line, at) => at > i && FENCE.test(line));
  const stop = last < 0 ? lines.length : last;
  return { block: element("pre", [element("code", [lines.slice(i + 1, stop).join("\n")])]), next: stop + 1 };
}

/**
 * @param {string[]} lines
 * @param {number} i
 * @param {string} tag
 * @param {RegExp} item
 */
function takeList(lines, i, tag, item) {
  const items = [];
  for (; i < lines.length && item.test(lines[i]); i++) items.push(element("li", inline(item.exec(lines[i])?.[1] ?? "")));
  return { block: element(tag, items), next: i };
}

/**
 * @param {string[]} lines
 * @param {number} i
 */
function takeParagraph(lines, i) {
  const taken = [];
  const isOther = (/** @type {string} */ line) => [FENCE, HEADING, BULLET, NUMBERED].some((start) => start.test(line));
  for (; i < lines.length && lines[i].trim() !== "" && (taken.length === 0 || !isOther(lines[i])); i++) taken.push(lines[i]);
  const nodes = taken.flatMap((line, at) => (at ? [document.createElement("br"), ...inline(line)] : inline(line)));
  return { block: element("p", nodes), next: i };
}

/**
 * @param {string} text
 * @returns {(Node | string)[]}
 */
function inline(text) {
  return text.split(INLINE).filter(Boolean).map((part) => {
    const link = LINK.exec(part);
    if (link) return anchor(link[1], link[2]);
    if (part.length > 2 && part.startsWith("`") && part.endsWith("`")) return element("code", [part.slice(1, -1)]);
    if (part.length > 4 && part.startsWith("**") && part.endsWith("**")) return element("strong", [part.slice(2, -2)]);
    if (part.length > 2 && /^\*[^*].*\*$/.test(part)) return element("em", [part.slice(1, -1)]);
    return part;
  });
}

/**
 * @param {string} text
 * @param {string} address
 */
function anchor(text, address) {
  const link = /** @type {HTMLAnchorElement} */ (element("a", [text || address]));
  link.href = address;
  link.rel = "noopener noreferrer";
  link.target = "_blank";
  return link;
}

/**
 * @param {string} tag
 * @param {(Node | string)[]} children
 */
function element(tag, children) {
  const made = document.createElement(tag);
  made.append(...children);
  return made;
}
