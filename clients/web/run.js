/** One request on its way: what the server sends becomes a recording. */

import { ApiError, denoise, rejoin } from "./api.js";
import { textsOfGiven } from "./labels.js";
import { Recording } from "./recording.js";

/** @typedef {import("./sse.js").SseEvent} SseEvent */

const RETRIES = 10;
const RETRY_MS = 300;

export class Run {
  /** @type {Recording | null} */
  recording = null;
  /** the event after which a broken stream can resume; empty if it cannot */
  #lastEventId = "";

  /**
   * @param {Record<string, any>} body
   * @param {Recording | null} parent  of a branch
   */
  constructor(body, parent = null) {
    this.body = body;
    this.parent = parent;
  }

  get canResume() {
    return this.#lastEventId !== "" && this.recording !== null && !this.recording.done;
  }

  /**
   * Follow the stream to its end, from its beginning or from where it broke.
   * @param {AbortSignal} signal
   * @param {(event: string) => void} onEvent  called after each event was recorded
   * @throws {Error} an ApiError of the server, a TypeError for a lost connection, an AbortError
   */
  async follow(signal, onEvent) {
    const events = this.recording ? this.#rejoined(this.recording.start.id, signal) : denoise(this.body, signal);
    let last = "";
    for await (const { event, data, id } of events) {
      this.#lastEventId = id;
      await this.#receive(event, JSON.parse(data));
      onEvent(event);
      last = event;
    }
    if (last !== "done") throw new TypeError("the stream broke off");
  }

  /**
   * Rejoin; for some seconds the server may still count the broken connection as the stream's reader.
   * @param {string} id
   * @param {AbortSignal} signal
   */
  async *#rejoined(id, signal) {
    for (let attempt = 0; ; attempt++) {
      try {
        return yield* rejoin(id, this.#lastEventId, signal);
      } catch (error) {
        const isStillRead = error instanceof ApiError && error.status === 409;
        if (!isStillRead || attempt === RETRIES) throw error;
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
        signal.throwIfAborted();
      }
    }
  }

  /**
   * @param {string} event
   * @param {any} data
   */
  async #receive(event, data) {
    if (event === "start") {
      const texts = { ...this.parent?.texts, ...(await textsOfGiven(this.body)) };
      // What the first run asked belongs to its branches too.
      this.recording = new Recording(data, { ...this.parent?.request, ...this.body }, texts, this.parent);
    }
    else if (event === "step") this.recording?.add(data);
    else if (event === "done" && this.recording) this.recording.done = data;
    else if (event === "error") {
      this.#lastEventId = "";
      throw new ApiError(data.error.message, data.error);
    }
  }
}
