// The part of the form that starts from a picture: shown as far as the chosen model can, with the
// mask and how far to leave the picture.

import { byId, setText } from "./dom.js";
import { Upload } from "./upload.js";

const IMAGE_STRENGTH = 0.8; // what the API takes for each kind where nothing is said
const INPAINTING_STRENGTH = 1;

const part = byId("from-picture");
const maskField = byId("mask-field");
const strength = byId("strength");

let isStrengthChosen = false;
let onPicture = () => {};
let hadPicture = false;

const uploads = {
  image: new Upload("image", changed),
  mask_image: new Upload("mask_image", changed),
};

strength.addEventListener("input", () => {
  isStrengthChosen = true;
  showStrength();
});

/** Call `listener(hasPicture)` when a picture to start from came or went. */
export function onStartPicture(listener) {
  onPicture = listener;
}

/** Show what a model that does these kinds of generation has a use for. */
export function offerKinds(kinds) {
  const takesMask = kinds.includes("inpainting");
  const takesPicture = takesMask || kinds.includes("image_to_image");
  part.hidden = !takesPicture;
  maskField.hidden = !takesMask;
  if (!takesPicture) uploads.image.clear();
  if (!takesMask) uploads.mask_image.clear();
}

/** Whether there is a picture to start from. */
export function hasStartPicture() {
  return uploads.image.content !== null;
}

/** What is sent: `{values, files, faults}`, with the files' names by field. */
export async function readStartPicture() {
  await Promise.all(Object.values(uploads).map((upload) => upload.ready));
  const read = { values: {}, files: {}, faults: [] };
  for (const [name, { content, fault }] of Object.entries(uploads)) {
    if (fault !== "") read.faults.push({ target: name, message: fault });
    if (content === null) continue;
    read.values[name] = content.base64;
    read.files[name] = content.fileName;
  }
  if (hasStartPicture()) read.values.strength = Number(strength.value);
  return read;
}

/** Take over from a job's `input`; its pictures are not kept by name, so they are asked for. */
export function fillStartPicture(input) {
  const words = input.image
    ? `That job started from a picture of ${input.image.width} × ${input.image.height}. Choose it again.`
    : "";
  for (const upload of Object.values(uploads)) upload.clear();
  isStrengthChosen = input.strength !== null;
  if (isStrengthChosen) strength.value = String(input.strength);
  setText(byId("start-note"), words);
  if (input.image) part.open = true;
  changed();
}

function changed() {
  byId("strength-field").hidden = !hasStartPicture();
  if (hasStartPicture()) setText(byId("start-note"), "");
  if (!isStrengthChosen)
    strength.value = String(uploads.mask_image.content ? INPAINTING_STRENGTH : IMAGE_STRENGTH);
  showStrength();
  if (hasStartPicture() === hadPicture) return;
  hadPicture = hasStartPicture();
  onPicture(hadPicture);
}

function showStrength() {
  setText(byId("strength-value"), Number(strength.value).toFixed(2));
}
