// Wires the page: form → submit → follow → stage and contact sheet. The shown job stands in the
// address (#job/ID), so that a link or the back button finds it again.

import {
  ApiError,
  cancelJob,
  eraseJob,
  getJob,
  listModels,
  resubmitJob,
  submitAddress,
  submitJob,
} from "./api.js";
import { refreshForEver, refreshSheet, takeJob, wireSheet } from "./contact-sheet.js";
import { credential } from "./credential.js";
import { curlCommand, filesOf, requestOf } from "./curl.js";
import { confirmed, copyText } from "./dialogs.js";
import { byId, el, setText } from "./dom.js";
import { follow } from "./follow.js";
import {
  clearFaults,
  fillRequest,
  offerModels,
  onRequest,
  readRequest,
  showFaults,
  showRefusal,
  startFrom,
} from "./form.js";
import { chooseFrame } from "./gallery.js";
import { cancelFailed, goToStage, onCancelPressed, showJob, showNothing } from "./job-view.js";
import { wireSignIn } from "./sign-in.js";
import { hasEnded, sentence, troubleWords } from "./words.js";

const MODELS_RETRY_MS = 3_000;
const EXAMPLES = [
  "a blue square on a yellow background",
  "a red heart above a white circle on a black background",
  "a snowy field at night with a moon, a pine tree and a red house",
];

const generate = byId("generate");
let watching = { id: null, controller: new AbortController() };
let unanswered = null; // the last submit, while it is not known whether it arrived

function say(words) {
  const notice = byId("connection");
  notice.hidden = words === "";
  setText(notice, words);
}

async function submit() {
  if (generate.getAttribute("aria-disabled") === "true") return;
  clearFaults();
  setSending(true);
  try {
    const { request, faults } = await readRequest();
    if (faults.length > 0) return showFaults(faults);
    const job = await submitJob(request, keyFor(request));
    unanswered = null;
    watch(job.id, job);
    goToStage();
    await refreshSheet();
  } catch (error) {
    if (error instanceof ApiError) unanswered = null;
    showRefusal(error);
  } finally {
    setSending(false);
  }
}

function setSending(isSending) {
  generate.setAttribute("aria-disabled", String(isSending));
  setText(generate, isSending ? "Sending…" : "Generate");
}

/** The same key for the same request until an answer came: sent twice, it is still one job. */
function keyFor(request) {
  const body = JSON.stringify(request);
  if (unanswered?.body !== body) {
    const random = crypto.getRandomValues(new Uint8Array(16));
    unanswered = {
      body,
      key: [...random].map((byte) => byte.toString(16).padStart(2, "0")).join(""),
    };
  }
  return unanswered.key;
}

/** Show a job on the stage and follow it until it ends or another is chosen. */
async function watch(id, job = null) {
  watching.controller.abort();
  const controller = new AbortController();
  if (location.hash !== `#job/${id}`) {
    const isFirst = watching.id === null; // what the page opens with is no step to go back from
    history[isFirst ? "replaceState" : "pushState"](null, "", `#job/${id}`);
  }
  watching = { id, controller };
  chooseFrame(id);
  say("");
  if (job !== null) showJob(job, actions);
  try {
    await follow(id, { signal: controller.signal, onJob: take, onTrouble: tell });
  } catch (error) {
    if (watching.controller === controller) say(troubleWords(error));
  }
}

function take(job) {
  showJob(job, actions);
  takeJob(job);
}

function tell(trouble) {
  if (trouble === null) return say("");
  const { error, delaySeconds } = trouble;
  const what =
    error instanceof ApiError ? sentence(error.message) : "The connection to Darkroom is lost.";
  say(`${what} Trying again in ${Math.ceil(delaySeconds)} s; your jobs go on meanwhile.`);
}

async function cancel(job) {
  try {
    const answer = await cancelJob(job.id);
    if (watching.id === answer.id) take(answer);
  } catch (error) {
    cancelFailed();
    say(`Not canceled. ${troubleWords(error)}`);
  }
}

const actions = {
  reuse: fillRequest,
  copyCurl: (job, button) =>
    copyCurl({ request: requestOf(job.input), files: filesOf(job.input) }, button),
  resubmit,
  erase,
};

async function resubmit(job) {
  try {
    const again = await resubmitJob(job.id);
    watch(again.id, again);
    goToStage({ focus: true });
    await refreshSheet();
  } catch (error) {
    say(`Not run again. ${troubleWords(error)}`);
  }
}

async function erase(job) {
  const words = "Its prompt and pictures are gone for good. Its times and costs stay on record.";
  if (!(await confirmed("Delete this job?", words, "Delete"))) return;
  try {
    await eraseJob(job.id);
    takeJob((await getJob(job.id)).job);
    if (watching.id === job.id) leaveJob();
    say("");
  } catch (error) {
    say(`Not deleted. ${troubleWords(error)}`);
  }
}

/** Show the stage as it was before the first job. */
function leaveJob() {
  watching.controller.abort();
  watching = { id: null, controller: new AbortController() };
  history.replaceState(null, "", location.pathname + location.search);
  showNothing();
  goToStage({ focus: true });
}

function copyCurl({ request, files }, button) {
  const needsKey = credential() !== null;
  copyText(curlCommand(submitAddress(), request, { files, needsKey }), button);
}

async function copyForm(event) {
  const button = event.currentTarget;
  clearFaults();
  const { request, files, faults } = await readRequest();
  if (faults.length > 0) showFaults(faults);
  else copyCurl({ request, files }, button);
}

async function loadModels() {
  for (;;) {
    try {
      const { value, default_model: chosen } = await listModels();
      offerModels(value, chosen);
      return;
    } catch (error) {
      say(troubleWords(error));
      await new Promise((resolve) => setTimeout(resolve, MODELS_RETRY_MS));
    }
  }
}

function jobInAddress() {
  const found = /^#job\/([a-z0-9-]+)$/.exec(location.hash);
  return found === null ? null : found[1];
}

async function start() {
  byId("examples").append(
    ...EXAMPLES.map((prompt) =>
      el(
        "li",
        {},
        el(
          "button",
          { type: "button", class: "example", onclick: () => startFrom(prompt) },
          prompt,
        ),
      ),
    ),
  );
  onRequest(submit);
  onCancelPressed(cancel);
  byId("copy-curl").addEventListener("click", copyForm);
  addEventListener("popstate", () => {
    const id = jobInAddress();
    if (id !== null && id !== watching.id) watch(id);
  });
  wireSignIn();
  wireSheet({
    choose: (id) => {
      watch(id);
      goToStage({ focus: true });
    },
    trouble: (error) => watching.id === null && say(troubleWords(error)),
  });
  await loadModels();
  say("");
  const jobs = await refreshSheet();
  const id = jobInAddress() ?? jobs?.find((job) => !hasEnded(job))?.id ?? jobs?.[0]?.id;
  if (id !== undefined) watch(id);
  await refreshForEver(() => watching.id);
}

start();
