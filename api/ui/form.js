// The request form: reads it into a request body, fills it from a model or a finished job, and
// shows each fault at the field that it names. Field names are those of the API.

import { byId, el } from "./dom.js";
import {
  fillStartPicture,
  hasStartPicture,
  offerKinds,
  onStartPicture,
  readStartPicture,
} from "./start-picture.js";
import { sentence, troubleWords } from "./words.js";

const TEXTS = ["prompt", "negative_prompt"];
const NUMBERS = ["width", "height", "num_images", "num_inference_steps", "guidance_scale", "seed"];
const PICTURES = ["image", "mask_image"];
const FIELDS = [
  ...TEXTS,
  ...NUMBERS,
  "model",
  "scheduler",
  "partial_images",
  ...PICTURES,
  "strength",
];
const SIDES = ["width", "height"];
const PREVIEWS = 3; // as many as the API makes of one job
const DEFAULTED = [...SIDES, "num_inference_steps", "guidance_scale"];

const form = byId("request");
const problem = byId("problem");
const more = byId("more");
const field = Object.fromEntries(FIELDS.map((name) => [name, byId(name)]));

let models = [];
let shownModel = null;

/** Offer these models; the one named `chosen` stands until somebody takes another. */
export function offerModels(offered, chosen) {
  models = offered;
  field.model.replaceChildren(
    ...models.map((model) => el("option", { value: model.name }, model.title || model.name)),
  );
  if (models.some((model) => model.name === chosen)) field.model.value = chosen;
  if (field.num_images.value === "") field.num_images.value = "1";
  adoptModel();
}

/** Call `onSubmit()` when the form is sent: by its button, or Ctrl or Command + Enter in a text. */
export function onRequest(onSubmit) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    onSubmit();
  });
  field.model.addEventListener("change", adoptModel);
  form.addEventListener("input", (event) => clearFault(event.target.name));
  onStartPicture(leaveSidesToPicture);
  for (const name of TEXTS) {
    field[name].addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
  }
}

/**
 * What the form asks for: `{request, files, faults}`, with the names of its pictures' files. Emptied
 * fields are left out, so defaults apply.
 */
export async function readRequest() {
  const request = { prompt: field.prompt.value };
  const faults = [];
  if (field.negative_prompt.value !== "") request.negative_prompt = field.negative_prompt.value;
  for (const name of ["model", "scheduler"]) {
    if (field[name].value !== "") request[name] = field[name].value;
  }
  for (const name of NUMBERS) {
    if (field[name].validity.badInput)
      faults.push({ target: name, message: `${name}: must be a number` });
    else if (field[name].value !== "") request[name] = Number(field[name].value);
  }
  if (field.partial_images.checked) request.partial_images = PREVIEWS;
  const start = await readStartPicture();
  return {
    request: { ...request, ...start.values },
    files: start.files,
    faults: [...faults, ...start.faults],
  };
}

/** Fill the form with the parameters of a job, as its `input` has them. */
export function fillRequest(input) {
  clearFaults();
  if (models.some((model) => model.name === input.model)) {
    field.model.value = input.model;
    adoptModel();
  }
  fillStartPicture(input);
  for (const name of [...TEXTS, ...NUMBERS]) field[name].value = String(input[name] ?? "");
  if ([...field.scheduler.options].some((option) => option.value === input.scheduler)) {
    field.scheduler.value = input.scheduler;
  }
  more.open = true;
  field.prompt.focus();
}

/** Put a prompt into the form and go there. */
export function startFrom(prompt) {
  field.prompt.value = prompt;
  field.prompt.focus();
}

/** Forget what was wrong with the last request. */
export function clearFaults() {
  problem.hidden = true;
  problem.replaceChildren();
  FIELDS.forEach(clearFault);
}

/** A field that is being changed is no longer at fault; with the last of them the summary goes. */
function clearFault(name) {
  if (!field[name]?.hasAttribute("aria-invalid")) return;
  field[name].removeAttribute("aria-invalid");
  byId(`${name}-error`).textContent = "";
  if (form.querySelector("[aria-invalid]") === null) problem.hidden = true;
}

/** Show why the API refused a request, or that it gave no answer. */
export function showRefusal(error) {
  const details = (error.details ?? []).filter((detail) => detail.message);
  const faults =
    details.length > 0
      ? details
      : [{ target: error.target, message: error.target ? error.message : troubleWords(error) }];
  showFaults(faults);
}

/** Show faults `{target, message}`: at their fields and in the summary; go to the first field. */
export function showFaults(faults) {
  clearFaults();
  const named = faults.map(({ target, message }) => ({
    name: fieldName(target),
    message: withoutName(message, target),
  }));
  for (const { name, message } of named) {
    if (name === null) continue;
    const slot = byId(`${name}-error`);
    slot.textContent = slot.textContent === "" ? message : `${slot.textContent}; ${message}`;
    field[name].setAttribute("aria-invalid", "true");
    for (const part of form.querySelectorAll("details"))
      if (part.contains(field[name])) part.open = true;
  }
  problem.append(el("ul", {}, ...named.map(faultLine)));
  problem.hidden = false;
  const first = named.find(({ name }) => name !== null);
  if (first) field[first.name].focus();
  else problem.scrollIntoView({ block: "nearest" });
}

function faultLine({ name, message }) {
  if (name === null) return el("li", {}, message);
  const go = (event) => {
    event.preventDefault();
    field[name].focus();
  };
  return el("li", {}, el("a", { href: `#${name}`, onclick: go }, labelOf(name)), `: ${message}`);
}

function labelOf(name) {
  return field[name].labels[0].textContent;
}

/** The message without the field's name in front, which the page says by its own label. */
function withoutName(message, target) {
  const start = `${target}: `;
  return sentence(message.startsWith(start) ? message.slice(start.length) : message);
}

/** The field a target such as "width" or "body.width" means; null if it is none of the form's. */
function fieldName(target) {
  const last = (target ?? "").split(".").at(-1);
  return FIELDS.includes(last) ? last : null;
}

/** Take over the chosen model's limits, and its defaults where the old model's still stand. */
function adoptModel() {
  const model = models.find((one) => one.name === field.model.value);
  if (!model) return;
  for (const name of DEFAULTED) {
    if (SIDES.includes(name) && hasStartPicture()) continue;
    const untouched =
      shownModel === null || field[name].value === String(shownModel.defaults[name]);
    if (field[name].value === "" || untouched) field[name].value = String(model.defaults[name]);
  }
  const limits = model.limits ?? {};
  field.width.max = field.height.max = limits.max_side ?? "";
  field.width.min = field.height.min = 64;
  field.num_inference_steps.max = limits.max_steps ?? "";
  field.guidance_scale.max = limits.max_guidance_scale ?? "";
  field.num_images.max = limits.max_images ?? "";
  offerSchedulers(model);
  shownModel = model;
  offerKinds(model.kinds ?? []);
}

/** A picture gives the sides, in its own shape; without one the model's are back. */
function leaveSidesToPicture(hasPicture) {
  for (const name of SIDES) {
    const usual = String(shownModel?.defaults[name] ?? "");
    field[name].placeholder = hasPicture ? "its own" : "";
    if (hasPicture && field[name].value === usual) field[name].value = "";
    else if (!hasPicture && field[name].value === "") field[name].value = usual;
  }
}

function offerSchedulers(model) {
  const kept = field.scheduler.value;
  const names = [...new Set([model.scheduler, ...(model.schedulers ?? [])])].filter(Boolean);
  field.scheduler.replaceChildren(
    el("option", { value: "" }, "The model's own"),
    ...names.map((name) => el("option", { value: name }, name)),
  );
  if (names.includes(kept)) field.scheduler.value = kept;
}
