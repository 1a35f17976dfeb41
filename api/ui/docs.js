// Draws the API reference from openapi.json: contents, routes with their parameters, bodies, answers
// and a curl command, and the schemas they name.

import { byId, el } from "./dom.js";
import { curlFor, kindWords, referenceOf } from "./schema-words.js";

const METHODS = ["get", "post", "put", "patch", "delete"];

/** Text with `code` in backticks and blank lines between paragraphs, as elements. */
function prose(text, name = "p") {
  return (text ?? "")
    .split(/\n\s*\n/)
    .filter((part) => part.trim() !== "")
    .map((part) => el(name, {}, ...inline(part)));
}

function inline(text) {
  return text
    .split(/`([^`]+)`/)
    .map((part, place) => (place % 2 === 1 ? el("code", {}, part) : part));
}

function operationsOf(api) {
  return Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.keys(methods)
      .filter((method) => METHODS.includes(method))
      .map((method) => {
        const operation = methods[method];
        const parameters = [...(methods.parameters ?? []), ...(operation.parameters ?? [])];
        return {
          path,
          method,
          operation: { ...operation, parameters },
          id: `${method}-${path.replace(/\W+/g, "-")}`,
        };
      }),
  );
}

function groupsOf(operations) {
  const groups = new Map();
  for (const one of operations) {
    const name = one.operation.tags?.[0] ?? "other";
    groups.set(name, [...(groups.get(name) ?? []), one]);
  }
  return groups;
}

function methodChip(method) {
  return el("span", { class: "method", "data-method": method }, method.toUpperCase());
}

/** One line of a list: a name, what it may be, whether it is needed, what it means. */
function entry(name, schema, { required = false, description } = {}) {
  const hasDefault =
    schema?.default !== undefined && schema.default !== null && typeof schema.default !== "object";
  const words = hasDefault
    ? `${kindWords(schema)}; default ${JSON.stringify(schema.default)}`
    : kindWords(schema);
  return el(
    "div",
    {},
    el(
      "dt",
      {},
      el("code", {}, name),
      required ? el("span", { class: "needed" }, "required") : null,
    ),
    el(
      "dd",
      {},
      ...prose(description ?? schema?.description, "div"),
      el("div", { class: "kind" }, kindLink(schema, words)),
    ),
  );
}

function kindLink(schema, words) {
  const name = referenceOf(schema);
  return name === null ? words : el("a", { href: `#schema-${name}` }, words);
}

function section(title, entries) {
  return entries.length === 0
    ? []
    : [el("h4", {}, title), el("dl", { class: "entries" }, ...entries)];
}

function answerEntry([status, answer]) {
  const [type, content] = Object.entries(answer.content ?? {})[0] ?? [];
  const name = referenceOf(content?.schema);
  return el(
    "div",
    {},
    el(
      "dt",
      {},
      el("code", {}, status),
      name ? el("a", { href: `#schema-${name}` }, name) : el("span", { class: "kind" }, type ?? ""),
    ),
    el("dd", {}, ...inline(answer.description ?? "")),
  );
}

function route({ id, path, method, operation }, api) {
  const parameters = operation.parameters.map((one) =>
    entry(`${one.name}`, one.schema, {
      required: one.required,
      description: `${one.description ?? ""} (${one.in})`,
    }),
  );
  const bodies = Object.entries(operation.requestBody?.content ?? {}).map(([type, content]) =>
    entry(type, content.schema, { required: operation.requestBody.required }),
  );
  const base = new URL(".", document.baseURI).href.replace(/\/$/, "");
  return el(
    "section",
    { class: "panel route", id, "aria-labelledby": `${id}-title` },
    el("h3", { id: `${id}-title` }, operation.summary ?? `${method} ${path}`),
    el("p", { class: "address" }, methodChip(method), path),
    ...prose(operation.description),
    ...section("Parameters", parameters),
    ...section("Body", bodies),
    ...section("Answers", Object.entries(operation.responses ?? {}).map(answerEntry)),
    el("h4", {}, "Example"),
    el(
      "pre",
      { tabindex: "0", role: "group", "aria-label": `curl example: ${operation.summary ?? path}` },
      curlFor(base, method, path, operation, api.components?.schemas ?? {}),
    ),
  );
}

function schemaPanel(name, schema) {
  const fields = Object.entries(schema.properties ?? {}).map(([field, meant]) =>
    entry(field, meant, { required: schema.required?.includes(field) }),
  );
  return el(
    "details",
    { class: "panel schema", id: `schema-${name}` },
    el("summary", {}, name),
    ...prose(schema.description),
    fields.length > 0 ? el("dl", { class: "entries" }, ...fields) : el("p", {}, kindWords(schema)),
  );
}

function contents(groups) {
  return [...groups].flatMap(([name, operations]) => [
    el("h2", {}, name),
    el(
      "ul",
      {},
      ...operations.map(({ id, path, method, operation }) =>
        el("li", {}, el("a", { href: `#${id}` }, methodChip(method), operation.summary ?? path)),
      ),
    ),
  ]);
}

/** A link to a schema opens it, from within the page and from an address. */
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
  target?.scrollIntoView();
}

function draw(api) {
  byId("lead").append(`${api.info.title} ${api.info.version}. ${api.info.summary ?? ""}`);
  const groups = groupsOf(operationsOf(api));
  byId("contents").append(
    ...contents(groups),
    el("h2", {}, el("a", { href: "#schemas" }, "Schemas")),
  );
  const main = byId("routes");
  for (const [name, operations] of groups) {
    main.append(el("h2", {}, name), ...operations.map((one) => route(one, api)));
  }
  main.append(
    el("h2", { id: "schemas" }, "Schemas"),
    ...Object.entries(api.components?.schemas ?? {}).map(([name, schema]) =>
      schemaPanel(name, schema),
    ),
  );
  addEventListener("hashchange", openTarget);
  if (location.hash !== "") openTarget();
}

async function start() {
  try {
    const response = await fetch("openapi.json");
    if (!response.ok) throw new Error(`status ${response.status}`);
    draw(await response.json());
  } catch (error) {
    const trouble = byId("trouble");
    trouble.textContent = `The API description could not be read (${error.message}). Reload to try again.`;
    trouble.hidden = false;
  }
}

start();
