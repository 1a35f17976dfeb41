// Following one job until it ends: long-polls, and backs off when the server does not answer.

import { getJob } from "./api.js";
import { hasEnded } from "./words.js";

const MOST_DELAY_SECONDS = 15;
const POLL_WITHOUT_ETAG_MS = 1000;
const SHORTEST_ROUND_MS = 100; // a server that answers at once must not be asked in a tight loop
const QUICK_UNCHANGED_MS = 1000;

/**
 * Call `onJob(job)` with every change of a job until it has ended or `signal` is aborted.
 * `onTrouble({error, delaySeconds})` says that an answer failed to come and when the next try is;
 * `onTrouble(null)` that answers come again. Throws errors for which trying again cannot help.
 */
export async function follow(id, { signal, onJob, onTrouble }) {
  let etag = null;
  let isInLine = false;
  let failures = 0;
  while (!signal.aborted) {
    const began = performance.now();
    try {
      const answer = await getJob(id, { etag, isInLine, signal });
      if (signal.aborted) return;
      if (failures > 0) onTrouble(null);
      failures = 0;
      // A job that waits may have moved up while its record, and so its etag, stayed the same.
      etag = answer.job === null && isInLine ? null : answer.etag;
      if (answer.job !== null) {
        isInLine = answer.job.status === "NotStarted";
        onJob(answer.job);
        if (hasEnded(answer.job)) return;
      }
      const round = answer.job === null ? QUICK_UNCHANGED_MS : SHORTEST_ROUND_MS;
      const least = answer.etag === null ? POLL_WITHOUT_ETAG_MS : round;
      await pause(began + least - performance.now(), signal);
    } catch (error) {
      if (signal.aborted) return;
      if (!error.isTemporary) throw error;
      failures += 1;
      const delaySeconds =
        error.retryAfterSeconds ?? Math.min(2 ** (failures - 1), MOST_DELAY_SECONDS);
      onTrouble({ error, delaySeconds });
      await pause(delaySeconds * 1000, signal);
    }
  }
}

/** Resolve after that time, or at once when the call is off or the network is back. */
function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const over = new AbortController();
    const end = () => {
      over.abort();
      clearTimeout(timer);
      resolve();
    };
    const timer = setTimeout(end, Math.max(0, milliseconds));
    signal.addEventListener("abort", end, { signal: over.signal });
    addEventListener("online", end, { signal: over.signal });
  });
}
