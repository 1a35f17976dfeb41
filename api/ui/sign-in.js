// The sign-in form. It takes the page's place whenever the API asks for a credential; what was under
// way waits and goes on with the new one.

import { onUnauthenticated, tryCredential } from "./api.js";
import { credential, forgetCredential, keepCredential } from "./credential.js";
import { byId, setText } from "./dom.js";
import { sentence, troubleWords } from "./words.js";

const HEADER_SAFE = /^[\x21-\x7e]+$/; // what a header can carry; pasted keys may bring more
const UNAUTHENTICATED = 401;

const section = byId("sign-in");
const field = byId("key");
const button = byId("sign-in-button");
const signOutButton = byId("sign-out");

let waiting = []; // calls that go on when somebody has signed in
let isTrying = false;

/** Let the API's 401 open the form, and wire it and the sign-out button. */
export function wireSignIn() {
  onUnauthenticated(signedIn);
  byId("sign-in-form").addEventListener("submit", (event) => {
    event.preventDefault();
    signIn(field.value.trim());
  });
  field.addEventListener("input", () => showFault(""));
  signOutButton.addEventListener("click", signOut);
  signOutButton.hidden = credential() === null;
}

/** Resolve when there is a credential other than the one that was refused. */
function signedIn(refused) {
  if (credential() !== refused) return Promise.resolve(); // another call's sign-in was quicker
  if (section.hidden) open(refused === null ? "" : "Your key is no longer accepted.");
  return new Promise((resolve) => waiting.push(resolve));
}

function open(fault) {
  showPage(false);
  showFault(fault);
  field.focus();
}

function showPage(isShown) {
  section.hidden = isShown;
  for (const id of ["bench", "skip-link"]) byId(id).hidden = !isShown;
  signOutButton.hidden = !isShown || credential() === null;
}

async function signIn(key) {
  if (isTrying) return;
  if (!HEADER_SAFE.test(key)) return refuse(key === "" ? "Enter a key." : "That is not a key.");
  setTrying(true);
  try {
    await tryCredential(key);
  } catch (error) {
    const isRefused = error.status === UNAUTHENTICATED;
    return refuse(isRefused ? "This key is not accepted." : sentence(troubleWords(error)));
  } finally {
    setTrying(false);
  }
  field.value = "";
  keepCredential(key);
  showPage(true);
  byId("prompt").focus();
  const goOn = waiting;
  waiting = [];
  for (const resolve of goOn) resolve();
}

function setTrying(isNow) {
  isTrying = isNow;
  button.setAttribute("aria-disabled", String(isNow));
  setText(button, isNow ? "Signing in…" : "Sign in");
}

function refuse(words) {
  showFault(words);
  field.focus();
}

function showFault(words) {
  setText(byId("key-error"), words);
  if (words === "") field.removeAttribute("aria-invalid");
  else field.setAttribute("aria-invalid", "true");
}

/** Forget the credential, and with a fresh page everything that was read with it. */
function signOut() {
  forgetCredential();
  history.replaceState(null, "", location.pathname);
  location.reload();
}
