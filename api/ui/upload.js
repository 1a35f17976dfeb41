// One picture to send with a request: chosen or dropped, checked here before it travels (the API
// checks again), shown small, and read as base64.

import { byId, setText } from "./dom.js";

const TYPES = ["image/png", "image/jpeg", "image/webp"];
const MOST_BYTES = 10 * 1024 * 1024;
const MOST_PIXELS = 4_194_304;
const MEGA = 1024 * 1024;

/** The field `name`: its file input, drop zone, preview, fault and Remove button. */
export class Upload {
  #name;
  #onChange;
  #taken = 0;
  #address = null;

  /** The base64 and the name of the file that will be sent; null without one. */
  content = null;

  /** Why the chosen file cannot be sent; empty if it can. */
  fault = "";

  /** Resolves when the last choice is read. */
  ready = Promise.resolve();

  /** `onChange()` is called when a file was taken, refused or removed. */
  constructor(name, onChange) {
    this.#name = name;
    this.#onChange = onChange;
    this.input.addEventListener("change", () => this.#choose(this.input.files));
    // Without this a browser tells nothing when the same file, changed since, is chosen again.
    this.input.addEventListener("click", () => {
      this.input.value = "";
    });
    this.#part("remove").addEventListener("click", () => {
      this.clear();
      this.input.focus();
    });
    this.#acceptDrops(this.#part("drop"));
  }

  get input() {
    return byId(this.#name);
  }

  /** Forget the file, and stop reading one. */
  clear() {
    this.#taken += 1;
    this.input.value = "";
    this.#set(null, "", "");
    this.#onChange();
  }

  #part(part) {
    return byId(`${this.#name}-${part}`);
  }

  #acceptDrops(zone) {
    zone.addEventListener("dragover", (event) => {
      event.preventDefault();
      zone.classList.add("is-over");
    });
    zone.addEventListener("dragleave", () => zone.classList.remove("is-over"));
    zone.addEventListener("drop", (event) => {
      event.preventDefault();
      zone.classList.remove("is-over");
      if (event.dataTransfer.files.length === 0) return;
      this.input.files = event.dataTransfer.files;
      this.#choose(event.dataTransfer.files);
    });
  }

  #choose(files) {
    if (files.length === 0) return this.clear();
    this.ready = this.#take(files[0], files.length);
  }

  async #take(file, count) {
    const mine = ++this.#taken;
    const address = URL.createObjectURL(file);
    const { fault, size } = await check(file, count, address);
    const base64 = fault === "" ? await base64Of(file) : null;
    if (mine !== this.#taken || fault !== "") URL.revokeObjectURL(address);
    if (mine !== this.#taken) return; // another file was chosen meanwhile
    if (fault !== "") this.#set(null, fault, file.name);
    else this.#set({ base64, fileName: file.name }, "", `${file.name}, ${size}`, address);
    this.#onChange();
  }

  #set(content, fault, words, address = null) {
    if (this.#address !== null) URL.revokeObjectURL(this.#address);
    this.#address = address;
    this.content = content;
    this.fault = fault;
    const preview = this.#part("preview");
    preview.hidden = address === null;
    if (address === null) preview.removeAttribute("src");
    else preview.src = address;
    setText(this.#part("name"), words);
    this.#part("remove").hidden = words === "";
    setText(this.#part("error"), fault);
    if (fault === "") this.input.removeAttribute("aria-invalid");
    else this.input.setAttribute("aria-invalid", "true");
  }
}

/** What is wrong with a file, in words, and its size in pixels if nothing is. */
async function check(file, count, address) {
  const refused = (fault) => ({ fault, size: "" });
  if (count > 1) return refused("One picture at a time.");
  if (!TYPES.includes(file.type)) return refused("Must be a PNG, JPEG or WebP file.");
  if (file.size > MOST_BYTES)
    return refused(`Must be at most 10 MiB; this file has ${(file.size / MEGA).toFixed(1)} MiB.`);
  const picture = new Image();
  picture.src = address;
  try {
    await picture.decode();
  } catch {
    return refused("This file cannot be read as a picture."); // whatever its name says
  }
  const { naturalWidth: width, naturalHeight: height } = picture;
  if (width * height > MOST_PIXELS)
    return refused(
      `Must have at most ${MOST_PIXELS.toLocaleString()} pixels; this one is ${width} × ${height}.`,
    );
  return { fault: "", size: `${width} × ${height}` };
}

function base64Of(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result.split(",", 2)[1]));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}
