// What stands below a job's pictures: where the time went, and its parameters.

import { el } from "./dom.js";
import { dollars, hasEnded, moment, seconds } from "./words.js";

const PARAMETERS = [
  ["Model", (job) => job.input.model],
  ["Size", (job) => `${job.input.width} × ${job.input.height}`],
  ["Steps", (job) => job.input.num_inference_steps],
  ["Guidance", (job) => job.input.guidance_scale],
  ["Seed", (job) => job.input.seed],
  ["Pictures", (job) => job.input.num_images],
  ["Scheduler", (job) => job.input.scheduler],
  ["Started from", (job) => startWords(job.input)],
  ["Strength", (job) => job.input.strength ?? ""],
  ["Negative prompt", (job) => job.input.negative_prompt],
  ["Attempts", (job) => (job.attempts > 1 ? job.attempts : "")],
  ["Cost", (job) => (job.usage?.cost_usd > 0 ? dollars(job.usage.cost_usd) : "")],
  ["Asked", (job) => moment(job.created_at)],
  ["Job", (job) => job.id],
];

const WIDE = { Scheduler: "wide", Asked: "wide", "Started from": "wide", Job: "full", "Negative prompt": "full" };

const SPANS = [
  ["queue", "Queue", "queue_seconds"],
  ["load", "Load", "load_seconds"],
  ["denoise", "Generate", "gpu_seconds"],
  ["store", "Store", "store_seconds"],
];

/** Where the time went, the parameters as they were run, and what can be done with the job. */
export function factsOf(job, actions) {
  const entries = PARAMETERS.map(([name, value]) => [name, value(job)]).filter(
    ([, value]) => value !== "" && value != null,
  );
  return [
    job.status === "Succeeded" ? timeSplit(job.usage) : null,
    el(
      "dl",
      { class: "parameters" },
      ...entries.map(([name, value]) =>
        el("div", { class: WIDE[name] }, el("dt", {}, name), el("dd", {}, String(value))),
      ),
    ),
    job.erased_at === null ? buttonsOf(job, actions) : null,
  ].filter(Boolean);
}

function buttonsOf(job, actions) {
  const button = (words, onclick, kind = "secondary") =>
    el("button", { type: "button", class: kind, onclick }, words);
  const isUnfinished = job.status === "Failed" || job.status === "Canceled";
  return el(
    "div",
    { class: "buttons" },
    isUnfinished ? button("Run again", () => actions.resubmit(job)) : null,
    button("Use these parameters", () => actions.reuse(job.input)),
    button("Copy as curl", (event) => actions.copyCurl(job, event.currentTarget)),
    hasEnded(job) ? button("Delete", () => actions.erase(job), "secondary is-grave") : null,
  );
}

function startWords({ image, mask_image: mask }) {
  if (image === null) return "";
  return `A picture of ${image.width} × ${image.height}${mask ? ", with a mask" : ""}`;
}

/** Where the time went: a bar for the eye, the same figures as a list for everybody. */
function timeSplit(usage) {
  const spans = SPANS.map(([key, name, property]) => ({
    key,
    name,
    value: usage?.[property] ?? 0,
  }));
  const strip = el(
    "div",
    { class: "strip", "aria-hidden": "true" },
    ...spans.map(({ key, value }) => {
      const part = el("div", { class: `span-${key}` });
      part.style.setProperty("flex-grow", String(value));
      return part;
    }),
  );
  const total = spans.reduce((sum, { value }) => sum + value, 0);
  return el(
    "div",
    { class: "time-split" },
    el("h3", {}, `Where the time went: ${seconds(total)}`),
    strip,
    el(
      "ul",
      {},
      ...spans.map(({ key, name, value }) =>
        el(
          "li",
          {},
          el("i", { class: `span-${key}`, "aria-hidden": "true" }),
          `${name} `,
          el("b", {}, seconds(value)),
        ),
      ),
    ),
  );
}
