// The stage: one job, from waiting to its pictures; job-facts.js adds what stands below them.

import { byId, el, setText } from "./dom.js";
import { factsOf } from "./job-facts.js";
import { borrowPicture } from "./pictures.js";
import { doingNow, hasEnded, percent, placeInLine, sentence, stateWord } from "./words.js";

const SMALL_SIDE_PIXELS = 256; // up to here a picture is enlarged, pixel by pixel
const ANNOUNCED_EVERY_PERCENT = 25;

const stage = byId("stage");
const state = byId("state");
const developing = byId("developing");
const bar = byId("progress");
const tray = byId("tray");
const facts = byId("facts");
const cancelButton = byId("cancel");

let shown = null;
let canceling = null;
let announced = "";
let borrowed = [];
let preview = { step: null, giveBack: () => {} };

/**
 * Show a job, or what is new about it. `actions` are what its buttons call: `reuse(input)`,
 * `copyCurl(job, button)`, `resubmit(job)`, `erase(job)`.
 */
export function showJob(job, actions) {
  const isOther = shown?.id !== job.id;
  if (!isOther && hasEnded(shown)) return; // a late answer must not reopen an ended job
  const hasTurned = isOther || shown.status !== job.status;
  byId("welcome").hidden = true;
  byId("job").hidden = false;
  showState(job);
  showProgress(job);
  if (isOther) {
    setText(byId("job-prompt"), job.erased_at === null ? job.input.prompt : "This job was erased.");
    announced = "";
  }
  if (hasTurned) {
    showTray(job, actions, shown !== null && !isOther);
    showError(job);
    facts.replaceChildren(...factsOf(job, actions));
  }
  showPreview(job);
  announce(job);
  shown = job;
}

/** Show no job, as before the first one. */
export function showNothing() {
  shown = null;
  emptyTray();
  state.hidden = true;
  byId("job").hidden = true;
  byId("welcome").hidden = false;
}

/** Call `onCancel(job)` when the shown job's cancel button is pressed. */
export function onCancelPressed(onCancel) {
  cancelButton.addEventListener("click", () => {
    if (shown === null || shown.cancel_requested || canceling === shown.id) return;
    canceling = shown.id;
    showProgress(shown);
    onCancel(shown);
  });
}

/** Let the cancel button be pressed again: the call did not go through. */
export function cancelFailed() {
  canceling = null;
  if (shown !== null) showProgress(shown);
}

/** Bring the stage's top into view; with `focus`, let the keyboard continue from there. */
export function goToStage({ focus = false } = {}) {
  if (focus) stage.focus({ preventScroll: true });
  const { top } = stage.getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) stage.scrollIntoView({ block: "start" });
}

function showState(job) {
  setText(state, stateWord(job));
  state.dataset.state = job.status;
  state.hidden = false;
}

function showProgress(job) {
  const ended = hasEnded(job);
  if (ended && developing.contains(document.activeElement)) stage.focus({ preventScroll: true });
  developing.hidden = ended;
  if (ended) {
    canceling = null;
    return;
  }
  const isStopping = canceling === job.id || job.cancel_requested === true;
  const words = isStopping ? "Canceling" : doingNow(job);
  setText(byId("progress-text"), words);
  setText(cancelButton, isStopping ? "Canceling…" : "Cancel");
  cancelButton.setAttribute("aria-disabled", String(isStopping));
  const isMeasured = job.phase === "generating" || job.phase === "storing";
  bar.classList.toggle("is-unmeasured", !isMeasured);
  bar.setAttribute("aria-valuetext", isMeasured ? `${percent(job)} %, ${words}` : words);
  bar.setAttribute("aria-valuenow", String(percent(job)));
  byId("progress-fill").style.setProperty("--share", String(job.progress));
  setText(byId("percent"), isMeasured ? `${percent(job)} %` : "");
}

function emptyTray() {
  for (const giveBack of borrowed) giveBack();
  borrowed = [];
  preview.giveBack();
  preview = { step: null, giveBack: () => {} };
  tray.replaceChildren();
}

function showTray(job, actions, wasWatched) {
  emptyTray();
  const { width, height, num_images: count } = job.input;
  tray.classList.toggle("is-many", count > 1);
  tray.classList.toggle("is-fresh", wasWatched && job.status === "Succeeded");
  if (job.status === "Succeeded") {
    tray.append(...job.images.map((image) => picture(job, image, actions)));
  } else if (!hasEnded(job)) {
    tray.append(...Array.from({ length: count }, () => blankSheet(width, height)));
  }
  tray.hidden = tray.childElementCount === 0;
}

/** Put the newest preview of a running job on its first sheet, in place of the one before. */
function showPreview(job) {
  const sheet = tray.querySelector(".sheet");
  if (sheet === null || !job.preview || job.preview.step === preview.step) return;
  const old = preview;
  const image = { url: `${job.preview.url}?step=${job.preview.step}` }; // a new address each time
  const giveBack = borrowPicture(image, (address) => {
    if (address === null) return; // the job has ended meanwhile, or the next one is there
    const img = el("img", { src: address, alt: "", "data-step": String(job.preview.step) });
    img.addEventListener("load", () => {
      if (sheet.isConnected) sheet.replaceChildren(img);
    });
  });
  preview = {
    step: job.preview.step,
    giveBack: () => {
      old.giveBack();
      giveBack();
    },
  };
}

/** Undeveloped paper of the picture's size: an empty picture keeps the place without inline CSS. */
function blankSheet(width, height) {
  const sheet = el("div", {
    class: `sheet${isSmall(width, height) ? " is-small" : ""}`,
    "aria-hidden": "true",
  });
  sheet.style.setProperty("aspect-ratio", `${width} / ${height}`);
  return sheet;
}

function picture(job, image, actions) {
  const nth = job.images.length > 1 ? ` (${image.index + 1} of ${job.images.length})` : "";
  const { width, height } = image;
  const img = el("img", {
    width,
    height,
    decoding: "async",
    alt: `AI-generated picture${nth}: ${job.input.prompt}`,
  });
  const full = el(
    "a",
    { target: "_blank", rel: "noopener", class: isSmall(width, height) ? "is-small" : null },
    img,
    el("span", { class: "visually-hidden" }, " (opens at full size in a new tab)"),
  );
  const download = el(
    "a",
    {
      download: `darkroom-${image.seed}.png`,
      class: "quiet",
      "aria-label": `Download the picture of seed ${image.seed}`,
    },
    "Download",
  );
  const missing = el("p", { class: "hint", hidden: true }, "The picture could not be fetched.");
  borrowed.push(
    borrowPicture(image, (address) => {
      missing.hidden = address !== null;
      if (address !== null) img.src = full.href = download.href = address;
    }),
  );
  const again = job.images.length > 1 ? seedButton(job, image, actions) : null;
  return el(
    "figure",
    {},
    full,
    missing,
    el(
      "figcaption",
      {},
      el("span", { class: "seed" }, `Seed ${image.seed}`),
      el("span", { class: "actions" }, again, download),
    ),
  );
}

function seedButton(job, image, actions) {
  const again = () => actions.reuse({ ...job.input, seed: image.seed, num_images: 1 });
  const name = `Use seed ${image.seed}`;
  return el(
    "button",
    { type: "button", class: "quiet", onclick: again, "aria-label": name },
    "Use seed",
  );
}

function isSmall(width, height) {
  return Math.max(width, height) <= SMALL_SIDE_PIXELS;
}

function showError(job) {
  const box = byId("job-error");
  box.hidden = !job.error;
  const words = job.error ? `${sentence(job.error.message)} (${job.error.code})` : "";
  setText(box, words);
}

/** Speak of a change of phase and of every quarter, not of every step. */
function announce(job) {
  let words = job.status === "NotStarted" ? placeInLine(job) : doingNow(job);
  if (job.erased_at !== null) words = "This job was erased.";
  else if (job.status === "Succeeded")
    words = `Done. ${job.images.length === 1 ? "The picture is" : `${job.images.length} pictures are`} shown.`;
  else if (job.status === "Failed") words = `Failed. ${job.error?.message ?? ""}`;
  else if (job.phase === "generating") {
    const quarter = Math.floor(percent(job) / ANNOUNCED_EVERY_PERCENT) * ANNOUNCED_EVERY_PERCENT;
    words = `Generating, ${quarter} percent`;
  }
  if (words === announced) return;
  announced = words;
  setText(byId("announcement"), words);
}
