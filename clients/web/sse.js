/**
 * Reads server-sent events from a fetch response: EventSource cannot send a POST
 * (WHATWG HTML, "Interpreting an event stream").
 */

/** @typedef {{event: string, data: string, id: string}} SseEvent */

/** Parses events from text that may be cut anywhere. */
export class SseParser {
  #rest = "";
  #endedInCr = false;
  #event = "";
  /** @type {string[]} */
  #data = [];
  #id = "";

  /**
   * @param {string} text
   * @returns {SseEvent[]} the events that `text` completes
   */
  push(text) {
    if (text === "") return [];
    // The two halves of a CRLF may come in two chunks; they are one line end.
    const fresh = this.#endedInCr && text.startsWith("\n") ? text.slice(1) : text;
    this.#endedInCr = text.endsWith("\r");
    const lines = (this.#rest + fresh).split(/\r\n|\r|\n/);
    this.#rest = lines.pop() ?? "";
    return lines.flatMap((line) => (line === "" ? this.#dispatch() : this.#readField(line)));
  }

  /** @returns {SseEvent[]} */
  #dispatch() {
    const event = { event: this.#event || "message", data: this.#data.join("\n"), id: this.#id };
    const isEmpty = this.#data.length === 0;
    this.#event = "";
    this.#data = [];
    return isEmpty ? [] : [event];
  }

  /**
   * @param {string} line
   * @returns {SseEvent[]}
   */
  #readField(line) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.#event = value;
    else if (name === "data") this.#data.push(value);
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    return [];
  }
}

/**
 * @param {ReadableStream<Uint8Array>} stream
 * @returns {AsyncGenerator<SseEvent>}
 */
export async function* readEvents(stream) {
  const parser = new SseParser();
  const decoder = new TextDecoder();
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield* parser.push(decoder.decode(value, { stream: true }));
  }
}
