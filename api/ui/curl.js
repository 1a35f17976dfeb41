// A request as a curl command for a POSIX shell. Pure: values in, text out. The credential is never
// in it: the command reads $DARKROOM_API_KEY where it runs.

const PICTURES = ["image", "mask_image"];

/**
 * The command that submits `request` to `address`. A request that starts from pictures is sent as a
 * form: `files` has the name of each picture's file by its field.
 */
export function curlCommand(address, request, { files = {}, needsKey = false } = {}) {
  const parts = [`curl -sS ${quoted(address)}`];
  if (needsKey) parts.push(`-H "Authorization: Bearer $DARKROOM_API_KEY"`);
  if (Object.keys(files).length > 0) parts.push(...formParts(request, files));
  else parts.push("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(request))}`);
  return parts.join(" \\\n  ");
}

function formParts(request, files) {
  const texts = Object.entries(request)
    .filter(([name]) => !PICTURES.includes(name))
    .map(([name, value]) => `--form-string ${quoted(`${name}=${asText(value)}`)}`);
  const pictures = Object.entries(files).map(
    ([name, file]) => `-F ${quoted(`${name}=@"${file.replace(/["\\]/g, String.raw`\$&`)}"`)}`,
  );
  return [...texts, ...pictures];
}

function asText(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Single quotes keep everything but themselves from the shell. */
function quoted(text) {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** The request that would make a job's pictures again, from its `input`. */
export function requestOf(input) {
  const given = Object.entries(input).filter(
    ([name, value]) =>
      value !== null && value !== "" && value.length !== 0 && !PICTURES.includes(name),
  );
  return Object.fromEntries(given);
}

/** The files that a job's command needs: its pictures are kept here by digest, not by name. */
export function filesOf(input) {
  const names = { image: "picture.png", mask_image: "mask.png" };
  return Object.fromEntries(PICTURES.filter((name) => input[name]).map((name) => [name, names[name]]));
}
