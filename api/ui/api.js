// The HTTP API as functions: the only module that calls fetch. Addresses are relative to the page,
// so that it also works below a path. A refusal of the API is an ApiError; no answer, Unreachable.

const LONG_POLL_SECONDS = 20;
const ANSWER_SECONDS = 30;

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

async function call(
  path,
  { method = "GET", headers = {}, body, signal, patienceSeconds = ANSWER_SECONDS } = {},
) {
  const timeout = AbortSignal.timeout(patienceSeconds * 1000);
  let response;
  let text;
  try {
    response = await fetch(path, {
      method,
      body: body === undefined ? undefined : JSON.stringify(body),
      headers: {
        Accept: "application/json",
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...headers,
      },
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable(error);
  }
  const content = parse(text);
  if (response.status >= 400) {
    throw new ApiError(
      response.status,
      content,
      Number(response.headers.get("Retry-After")) || null,
    );
  }
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

/** The newest jobs, newest first. */
export async function listJobs(limit) {
  return (await call(`v1/jobs?limit=${limit}`)).content.value;
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
 * Read a job. With the etag of the last answer the server holds the call until the job changes, at
 * most LONG_POLL_SECONDS; `job` is then null if nothing did.
 */
export async function getJob(id, { etag = null, signal }) {
  const held = etag !== null;
  const answer = await call(
    `v1/jobs/${encodeURIComponent(id)}${held ? `?wait=${LONG_POLL_SECONDS}` : ""}`,
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
  return (await call(`v1/jobs/${encodeURIComponent(id)}:cancel`, { method: "POST" })).content;
}

/** Where the page gets a picture from: the path alone, as a proxy may have another host name. */
export function pictureAddress(image) {
  const address = new URL(image.url, document.baseURI);
  return address.pathname + address.search;
}
