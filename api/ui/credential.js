// The caller's credential. It lives in this tab's session storage alone: no cookie, nothing that
// outlives the tab, no other module touches the storage.

const PLACE = "darkroom-credential";

/** The credential, or null while nobody has signed in. */
export function credential() {
  return sessionStorage.getItem(PLACE);
}

export function keepCredential(key) {
  sessionStorage.setItem(PLACE, key);
}

export function forgetCredential() {
  sessionStorage.removeItem(PLACE);
}
