// The two dialogs of the page: a question before what cannot be undone, and a command to copy where
// the browser gives no access to the clipboard (it does on https and on this machine alone).

import { byId, setText } from "./dom.js";

const question = byId("confirm");
const command = byId("command");
const COPIED_MS = 2_500;

/** Ask, and resolve to whether the answer was yes. Escape is no. */
export function confirmed(title, words, yes) {
  setText(byId("confirm-title"), title);
  setText(byId("confirm-words"), words);
  setText(byId("confirm-yes"), yes);
  question.returnValue = "";
  question.showModal();
  return new Promise((resolve) => {
    question.addEventListener("close", () => resolve(question.returnValue === "yes"), {
      once: true,
    });
  });
}

/** Put text on the clipboard and say so on the button; else show it, selected. */
export async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = byId("command-text");
    area.value = text; // no clipboard here, or the browser refused it
    command.showModal();
    area.select();
    return;
  }
  const words = button.dataset.words ?? button.textContent;
  button.dataset.words = words;
  setText(button, "Copied");
  setText(byId("copied"), "The command is on the clipboard.");
  setTimeout(() => {
    setText(button, words);
    setText(byId("copied"), "");
  }, COPIED_MS);
}
