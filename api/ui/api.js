// The HTTP API as functions: the only module that calls fetch. Addresses are relative to the page,
// so that it also works below a path. A refusal of the API is an ApiError; no answer, Unreachable;
// a 401 waits until somebody has signed in, and is then tried again.

import { credential } from "./credential.js";

const LONG_POLL_SECONDS = 20;
const LINE_POLL_SECONDS = 3; // a place in the line changes without the record of the job
const ANSWER_SECONDS = 30;
const UNAUTHENTICATED = 401;
const PICTURE = "image/png";

/** The API answered with an error: its code, message, the field at fault and further details. */
export class ApiError extends Error {
  constructor(status, body, retryAfterSeconds) {
    const error = body?.error ?? {};
    super(error.message ?? `The server answered with status ${status}.`);
    this.status = status;
    this.code = error.code ?? "";
    this.target = error.target ?? null;
    this.details = error.details ?? [];
    this.retryAfterSeconds = retryAfterSeconds;
  }

  /** Whether the same call may succeed later. */
  get isTemporary() {
    return this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

/** No answer came: the server is down, the network is, or it took too long. */
export class Unreachable extends Error {
  constructor(cause) {
    super("Darkroom cannot be reached.", { cause });
    this.isTemporary = true;
    this.retryAfterSeconds = null;
  }
}

let signedIn = null;

/** `wait(refused)` resolves when there is a credential other than the refused one (or null). */
export function onUnauthenticated(wait) {
  signedIn = wait;
}

async function call(path, { signal, ...options } = {}) {
  for (;;) {
    const key = credential();
    try {
      return await callWith(key, path, { signal, ...options });
    } catch (error) {
      if (error.status !== UNAUTHENTICATED) throw error;
      await signedIn(key);
      signal?.throwIfAborted();
    }
  }
}

async function callWith(
  key,
  path,
  {
    method = "GET",
    headers = {},
    body,
    signal,
    patienceSeconds = ANSWER_SECONDS,
    accept = "application/json",
  } = {},
) {
  const timeout = AbortSignal.timeout(patienceSeconds * 1000);
  let response;
  let bytes;
  try {
    response = await fetch(path, {
      method,
      body: body === undefined ? undefined : JSON.stringify(body),
      headers: {
        Accept: accept,
        ...(key === null ? {} : { Authorization: `Bearer ${key}` }),
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...headers,
      },
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
    bytes = await response.blob();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable(error);
  }
  if (response.status >= 400) {
    throw new ApiError(
      response.status,
      parse(await bytes.text()),
      Number(response.headers.get("Retry-After")) || null,
    );
  }
  const content = accept === PICTURE ? bytes : parse(await bytes.text());
  return { status: response.status, etag: response.headers.get("ETag"), content };
}

function parse(text) {
  try {
    return text === "" ? null : JSON.parse(text);
  } catch {
    return null; // a proxy's error page; the status still tells
  }
}

/** The models that may be asked for, and the default's name: `{value, default_model}`. */
export async function listModels() {
  return (await call("v1/models")).content;
}

/** Throws unless the API lets this credential read; nothing is kept of it. */
export async function tryCredential(key) {
  await callWith(key, "v1/models");
}

/** The newest jobs, newest first, of one status or all: `{value, next_link}`. */
export async function listJobs({ limit, status }) {
  const filter = status === "" ? "" : `&status=${encodeURIComponent(status)}`;
  return (await call(`v1/jobs?limit=${limit}${filter}`)).content;
}

/** The page of jobs behind a `next_link`; the query alone, as a proxy may have another host name. */
export async function listOlderJobs(link) {
  return (await call(`v1/jobs${new URL(link, document.baseURI).search}`)).content;
}

/**
 * Submit a job. The same key and body never make a second job, so a submit whose answer was lost
 * can be sent again.
 */
export async function submitJob(request, idempotencyKey) {
  const answer = await call("v1/jobs", {
    method: "POST",
    body: request,
    headers: { "Idempotency-Key": `"${idempotencyKey}"` },
  });
  return answer.content;
}

/**
 * Read a job. With the etag of the last answer the server holds the call until the job changes,
 * shortly for one that `isInLine`; `job` is then null if nothing did.
 */
export async function getJob(id, { etag = null, isInLine = false, signal } = {}) {
  const held = etag !== null;
  const wait = isInLine ? LINE_POLL_SECONDS : LONG_POLL_SECONDS;
  const answer = await call(
    `${jobPath(id)}${held ? `?wait=${wait}` : ""}`,
    {
      headers: held ? { "If-None-Match": etag } : {},
      patienceSeconds: ANSWER_SECONDS + (held ? LONG_POLL_SECONDS : 0),
      signal,
    },
  );
  return { job: answer.status === 304 ? null : answer.content, etag: answer.etag ?? etag };
}

/** Ask for a job to be canceled; answers with the job as it is then. */
export async function cancelJob(id) {
  return (await call(`${jobPath(id)}:cancel`, { method: "POST" })).content;
}

/** Run a failed or canceled job again; answers with the new job. */
export async function resubmitJob(id) {
  return (await call(`${jobPath(id)}:resubmit`, { method: "POST" })).content;
}

/** Erase the prompt and the pictures of a job that has ended. */
export async function eraseJob(id) {
  await call(jobPath(id), { method: "DELETE" });
}

/** The bytes of a picture, as a Blob. */
export async function fetchPicture(address, signal) {
  return (await call(address, { accept: PICTURE, signal })).content;
}

function jobPath(id) {
  return `v1/jobs/${encodeURIComponent(id)}`;
}

/** Where jobs are submitted, for a command outside the page. */
export function submitAddress() {
  return new URL("v1/jobs", document.baseURI).href;
}

/** Where the page gets a picture from: the path alone, as a proxy may have another host name. */
export function pictureAddress(image) {
  const address = new URL(image.url, document.baseURI);
  return address.pathname + address.search;
}
