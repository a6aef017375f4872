/** The chat so far, kept in the page: every answer becomes a turn, and the next message is sent with all of them. */

import { $ } from "./page.js";

/** @typedef {import("./form.js").Turn} Turn */

/** @type {Turn[]} */
let turns = [];

export function chatTurns() {
  return turns;
}

/**
 * @param {string} question
 * @param {string} answer
 */
export function addExchange(question, answer) {
  turns = [...turns, { role: "user", content: question }, { role: "assistant", content: answer }];
  show();
  $("turns").lastElementChild?.scrollIntoView({ block: "nearest" });
}

/** Take the last exchange back, to ask again. @returns {string} its question */
export function takeBackExchange() {
  const question = turns.at(-2)?.content ?? "";
  turns = turns.slice(0, -2);
  show();
  return question;
}

export function clearChat() {
  turns = [];
  show();
}

function show() {
  $("turns").replaceChildren(...turns.map(({ role, content }) => {
    const item = document.createElement("li");
    item.className = `turn is-${role}`;
    const who = document.createElement("span");
    who.className = "who";
    who.textContent = role === "user" ? "You" : "LLaDA";
    const text = document.createElement("p");
    text.textContent = content;
    item.append(who, text);
    return item;
  }));
  $("chat").hidden = turns.length === 0;
}
