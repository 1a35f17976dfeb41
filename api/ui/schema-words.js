// Reads JSON Schema as OpenAPI 3.1 has it: kinds and limits in words, and an example to start from.
// Pure: schemas in, text and values out.

const REFERENCE = "#/components/schemas/";

// What reads better in an example than "text".
const EXAMPLE_TEXT = { prompt: "a blue square on a yellow background" };

/** The name of the schema that `schema` refers to, itself or as the one that is not null. */
export function referenceOf(schema = {}) {
  if (schema.$ref?.startsWith(REFERENCE)) return schema.$ref.slice(REFERENCE.length);
  if (schema.items) return referenceOf(schema.items);
  const several = [...(schema.anyOf ?? []), ...(schema.oneOf ?? []), ...(schema.allOf ?? [])];
  return several.map(referenceOf).find((name) => name !== null) ?? null;
}

/** What a value may be, for people: "integer, 64 to 2048, a multiple of 8, or null". */
export function kindWords(schema = {}) {
  if (schema.$ref) return referenceOf(schema);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const several = schema.anyOf ?? schema.oneOf;
  if (several) return several.map(kindWords).join(", or ");
  if (schema.allOf?.length === 1) return kindWords(schema.allOf[0]);
  const limits = limitWords(schema);
  return [typeWords(schema), ...limits].filter(Boolean).join(", ");
}

function typeWords(schema) {
  if (schema.type === "array") return `list of ${kindWords(schema.items)}`;
  if (schema.type === "object" && schema.additionalProperties?.type)
    return `map of ${kindWords(schema.additionalProperties)}`;
  if (schema.type === "string" && schema.format) return schema.format;
  return schema.type ?? "anything";
}

function limitWords(schema) {
  return [
    range(schema.minimum, schema.maximum, ""),
    schema.exclusiveMinimum === undefined ? "" : `over ${schema.exclusiveMinimum}`,
    schema.multipleOf === undefined ? "" : `a multiple of ${schema.multipleOf}`,
    range(schema.minLength, schema.maxLength, " characters"),
    range(schema.minItems, schema.maxItems, " entries"),
    range(schema.minProperties, schema.maxProperties, " entries"),
  ].filter(Boolean);
}

function range(least, most, unit) {
  if (least === undefined && most === undefined) return "";
  if (least === undefined) return `at most ${figure(most)}${unit}`;
  return most === undefined
    ? `at least ${figure(least)}${unit}`
    : `${figure(least)} to ${figure(most)}${unit}`;
}

function figure(number) {
  return number.toLocaleString("en");
}

/** A small body that the schema accepts: what is required, and nothing else. */
export function exampleOf(schema, schemas, name = "") {
  const meant = schema.$ref ? schemas[referenceOf(schema)] : schema;
  if (meant.examples?.length) return meant.examples[0];
  if (meant.default !== undefined) return meant.default;
  if (meant.enum) return meant.enum[0];
  if (meant.anyOf) return exampleOf(meant.anyOf[0], schemas, name);
  switch (meant.type) {
    case "object":
      return Object.fromEntries(
        (meant.required ?? []).map((key) => [key, exampleOf(meant.properties[key], schemas, key)]),
      );
    case "array":
      return [];
    case "integer":
    case "number":
      return meant.minimum ?? 1;
    case "boolean":
      return true;
    default:
      return EXAMPLE_TEXT[name] ?? "text";
  }
}

/** A curl command for an operation, ready for a POSIX shell; path parameters become variables. */
export function curlFor(base, method, path, operation, schemas) {
  const address = path.replace(/\{(\w+)\}/g, (_, name) => pathValue(name, operation));
  const parts = [
    `curl -sS${method === "get" ? "" : ` -X ${method.toUpperCase()}`} "${base}${address}"`,
  ];
  const content = operation.requestBody?.content?.["application/json"];
  if (content) {
    const body = JSON.stringify(exampleOf(content.schema, schemas)).replaceAll(
      "'",
      String.raw`'\''`,
    );
    parts.push(`-H 'Content-Type: application/json'`, `-d '${body}'`);
  }
  if (answersPicture(operation)) parts.push("-L -o picture.png");
  return parts.join(" \\\n  ");
}

function pathValue(name, operation) {
  const parameter = (operation.parameters ?? []).find((one) => one.name === name);
  return parameter?.schema?.type === "integer" ? "0" : `\${${name.toUpperCase()}}`;
}

function answersPicture(operation) {
  return Object.values(operation.responses ?? {}).some((answer) => answer.content?.["image/png"]);
}
