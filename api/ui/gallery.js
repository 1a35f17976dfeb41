// The contact sheet: recent jobs as small frames. Frames are kept by job and changed in place, so
// that the keyboard's place and the pictures stay when the list is read again.

import { byId, el, setText } from "./dom.js";
import { borrowPicture } from "./pictures.js";
import { hasEnded, percent, stateWord } from "./words.js";

const list = byId("frames");
const frames = new Map();
let chosen = null;

/** Show these jobs, newest first; `onChoose(id)` is called when a frame is pressed. */
export function showJobs(jobs, onChoose) {
  byId("recent-empty").hidden = jobs.length > 0;
  const ids = new Set(jobs.map((job) => job.id));
  for (const [id, frame] of frames) {
    if (ids.has(id)) continue;
    frame.item.remove();
    frame.giveBack();
    frames.delete(id);
  }
  jobs.forEach((job, place) => {
    const frame = frames.get(job.id) ?? newFrame(job, onChoose);
    if (list.children[place] !== frame.item)
      list.insertBefore(frame.item, list.children[place] ?? null);
    update(frame, job);
  });
}

/** Take over what is new about a job that is on the sheet already. */
export function updateJob(job) {
  const frame = frames.get(job.id);
  if (frame) update(frame, job);
}

/** Whether a job on the sheet, other than `id`, is still waiting or running. */
export function hasOthersUnderWay(id) {
  return [...frames.values()].some((frame) => frame.job.id !== id && !hasEnded(frame.job));
}

/** Mark the frame of the job that the stage shows. */
export function chooseFrame(id) {
  chosen = id;
  for (const frame of frames.values()) mark(frame);
}

function newFrame(job, onChoose) {
  const window = el("span", { class: "window" });
  const state = el("span", { class: "frame-state" });
  const button = el(
    "button",
    { type: "button", class: "frame", onclick: () => onChoose(job.id) },
    window,
    el("span", { class: "frame-prompt" }, job.input.prompt),
    state,
  );
  const frame = { item: el("li", {}, button), button, window, state, job: null, giveBack: () => {} };
  frames.set(job.id, frame);
  return frame;
}

function update(frame, job) {
  if (frame.job !== null && hasEnded(frame.job)) return; // an ended job stays as it is
  const first = job.images[0];
  if (first && !frame.window.hasChildNodes()) {
    const { width, height } = first;
    const img = el("img", { alt: "", width, height, loading: "lazy", decoding: "async" });
    frame.window.append(img);
    frame.giveBack = borrowPicture(first, (address) => {
      if (address === null) img.remove();
      else img.src = address;
    });
  }
  const count = job.images.length > 1 ? `, ${job.images.length} pictures` : "";
  const share = job.status === "Running" ? ` ${percent(job)} %` : "";
  setText(frame.state, stateWord(job) + share + count);
  frame.state.classList.toggle("visually-hidden", job.status === "Succeeded" && count === "");
  frame.button.dataset.state = job.status;
  frame.job = job;
  mark(frame);
}

function mark(frame) {
  if (frame.job.id === chosen) frame.button.setAttribute("aria-current", "true");
  else frame.button.removeAttribute("aria-current");
}
