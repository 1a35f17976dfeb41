// What the page says about a job, in words. Pure: a job in, text out.

const STATES = {
  NotStarted: "Waiting",
  Running: "Running",
  Succeeded: "Done",
  Failed: "Failed",
  Canceled: "Canceled",
};

/** Whether nothing can happen to the job any more. */
export function hasEnded(job) {
  return job.status === "Succeeded" || job.status === "Failed" || job.status === "Canceled";
}

/** The job's state in one word. */
export function stateWord(job) {
  return STATES[job.status] ?? job.status;
}

/** What is being done right now. */
export function doingNow(job) {
  if (job.status === "NotStarted") {
    const eta = job.queue?.eta_seconds ?? 0;
    return placeInLine(job) + (eta >= 1 ? `, begins in about ${about(eta)}` : "");
  }
  switch (job.phase) {
    case "loading":
      return "Loading the model";
    case "generating":
      return `Generating, step ${job.step} of ${job.input.num_inference_steps}`;
    case "storing":
      return "Storing";
    default:
      return stateWord(job);
  }
}

/** Where a waiting job stands, without the time, which changes too often to be spoken. */
export function placeInLine(job) {
  if (job.attempts > 0) return "Waiting for another try";
  const position = job.queue?.position;
  if (position === undefined) return "Waiting for a worker";
  return position === 1 ? "Next in line" : `Number ${position} in line`;
}

function about(value) {
  if (value < 100) return `${Math.round(value)} s`;
  const minutes = Math.round(value / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
}

/** Progress in whole percent. */
export function percent(job) {
  return Math.round(100 * job.progress);
}

/** Seconds for people: three figures at most, minutes above a hundred. */
export function seconds(value) {
  const whole = Math.round(value);
  if (whole >= 100) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (value >= 10) return `${value.toFixed(0)} s`;
  return value >= 1 ? `${value.toFixed(1)} s` : `${value.toFixed(2)} s`;
}

/** US dollars for people; tiny sums keep their first two figures. */
export function dollars(value) {
  return value >= 0.1 ? `$${value.toFixed(2)}` : `$${Number(value.toPrecision(2))}`;
}

/** A moment in the reader's own way of writing it. */
export function moment(text) {
  return new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

/** What a refused or unanswered call means to the person who made it. */
export function troubleWords(error) {
  if (error.status === undefined)
    return "Darkroom cannot be reached. Check that it is running and try again.";
  return sentence(error.message);
}

/** The text with a capital letter in front; the API's messages begin with the field they name. */
export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
