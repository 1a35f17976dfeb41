// The contact sheet's contents: reads the newest jobs again and again, older ones when asked, and one
// state alone when chosen; gallery.js draws them.

import { getJob, listJobs, listOlderJobs } from "./api.js";
import { byId, setText } from "./dom.js";
import { hasOthersUnderWay, showJobs, updateJob } from "./gallery.js";
import { PastJobs } from "./past-jobs.js";
import { hasEnded } from "./words.js";

const PAGE_JOBS = 24;
const REFRESH_BUSY_MS = 3_000;
const REFRESH_IDLE_MS = 30_000;
const MOST_EMPTY_PAGES = 10; // a filtered page may be empty and still have a next one

const filter = byId("status-filter");
const olderButton = byId("older");

let past = new PastJobs(filter.value);
let onChoose = () => {};
let onTrouble = () => {};

/** Wire the sheet: `choose(id)` when a frame is pressed, `trouble(error)` when a read failed. */
export function wireSheet({ choose, trouble }) {
  onChoose = choose;
  onTrouble = trouble;
  filter.addEventListener("change", chooseStatus);
  olderButton.addEventListener("click", showOlder);
  addEventListener("focus", () => refreshSheet());
}

/** Read the newest jobs; returns what the sheet shows, or null if no answer came. */
export async function refreshSheet() {
  const mine = past;
  try {
    const page = await listJobs({ limit: PAGE_JOBS, status: mine.status });
    if (mine !== past) return null; // another state was chosen meanwhile
    mine.takeNewest(page);
    await readAgain(mine, page.value);
    if (mine.jobs.length === 0) await readOlder(mine);
    if (mine === past) show();
    return shown();
  } catch (error) {
    onTrouble(error); // the sheet stays as it was; the next refresh tries again
    return null;
  }
}

/** Refresh, now and then, for as long as the page is open. */
export async function refreshForEver(watchedId) {
  for (;;) {
    const pause = hasOthersUnderWay(watchedId()) ? REFRESH_BUSY_MS : REFRESH_IDLE_MS;
    await new Promise((resolve) => setTimeout(resolve, pause));
    if (!document.hidden) await refreshSheet();
  }
}

/** Take over what is new about a job. */
export function takeJob(job) {
  past.update(job);
  updateJob(job);
  if (job.erased_at !== null) show();
}

function shown() {
  return past.jobs.filter((job) => job.erased_at === null);
}

function show() {
  showJobs(shown(), onChoose);
  const isFiltered = past.status !== "";
  setText(
    byId("recent-empty"),
    isFiltered ? "No job is in this state." : "Pictures that you ask for gather here.",
  );
  olderButton.hidden = past.next === null;
}

/** Jobs that older pages brought, or that newer ones pushed out, and that were not over then. */
async function readAgain(mine, fresh) {
  const read = new Set(fresh.map((job) => job.id));
  const open = mine.jobs.filter((job) => !hasEnded(job) && !read.has(job.id));
  for (const { job } of await Promise.all(open.map(({ id }) => getJob(id)))) {
    mine.update(job);
  }
}

async function chooseStatus() {
  past = new PastJobs(filter.value);
  await refreshSheet();
}

async function showOlder() {
  if (olderButton.getAttribute("aria-disabled") === "true") return;
  olderButton.setAttribute("aria-disabled", "true");
  const mine = past;
  const before = shown().length;
  try {
    await readOlder(mine);
    if (mine !== past) return;
    show();
    document.querySelectorAll("#frames .frame")[before]?.focus(); // go on where the list grew
  } catch (error) {
    onTrouble(error);
  } finally {
    olderButton.removeAttribute("aria-disabled");
  }
}

/** Read on until there is something to show. */
async function readOlder(mine) {
  const before = mine.jobs.length;
  for (let pages = 0; pages < MOST_EMPTY_PAGES; pages += 1) {
    if (mine.next === null || mine.jobs.length > before) return;
    mine.takeOlder(await listOlderJobs(mine.next));
  }
}
