// The jobs that have been read: the newest page, which is read again and again, and the older pages
// behind it. Pure: pages in, a list out.

/** The jobs of one filter, newest first. */
export class PastJobs {
  #status;
  #jobs = [];
  #next = null;
  #isRead = false;

  /** Of one status, or of every one if it is empty. */
  constructor(status) {
    this.#status = status;
  }

  get status() {
    return this.#status;
  }

  /** All that has been read. */
  get jobs() {
    return this.#jobs;
  }

  /** The link to the page behind the oldest job; null if that was the last. */
  get next() {
    return this.#next;
  }

  /** Take over the newest page; what older pages brought, and what it pushed out, stays. */
  takeNewest({ value, next_link: next = null }) {
    const last = value.at(-1);
    const kept = this.#jobs.filter(
      (job) => next !== null && this.#fits(job) && (last === undefined || isOlder(job, last)),
    );
    if (!this.#isRead || kept.length === 0) this.#next = next;
    this.#isRead = true;
    this.#jobs = [...value, ...kept];
  }

  /** Add the page behind the oldest job. */
  takeOlder({ value, next_link: next = null }) {
    const known = new Set(this.#jobs.map((job) => job.id));
    this.#jobs = [...this.#jobs, ...value.filter((job) => !known.has(job.id))];
    this.#next = next;
  }

  /** Take over what is new about one job. */
  update(job) {
    this.#jobs = this.#jobs.map((known) => (known.id === job.id ? job : known));
  }

  #fits(job) {
    return this.#status === "" || job.status === this.#status;
  }
}

function isOlder(job, than) {
  const apart = Date.parse(job.created_at) - Date.parse(than.created_at);
  return apart === 0 ? job.id < than.id : apart < 0;
}
