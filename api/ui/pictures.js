// Pictures for <img> and <a>. Where nobody signs in their own addresses do. With a credential, which
// an <img> cannot send, the bytes are fetched once and lent as an object URL to all who show them;
// when the last one gives it back the URL is revoked.

import { fetchPicture, pictureAddress } from "./api.js";
import { credential } from "./credential.js";

const lent = new Map();

/**
 * Call `onAddress(url)` when the picture can be shown, with null if it cannot be had. Returns the
 * function that gives it back.
 */
export function borrowPicture(image, onAddress) {
  const path = pictureAddress(image);
  if (credential() === null) {
    onAddress(path);
    return () => {};
  }
  const loan = lent.get(path) ?? fetchLoan(path);
  loan.users += 1;
  let isMine = true;
  loan.url.then((url) => isMine && onAddress(url));
  return () => {
    if (!isMine) return;
    isMine = false;
    giveBack(path, loan);
  };
}

function fetchLoan(path) {
  const controller = new AbortController();
  const url = fetchPicture(path, controller.signal).then(
    (blob) => URL.createObjectURL(blob),
    () => {
      if (lent.get(path) === loan) lent.delete(path); // who asks next tries again
      return null;
    },
  );
  const loan = { users: 0, url, controller };
  lent.set(path, loan);
  return loan;
}

function giveBack(path, loan) {
  loan.users -= 1;
  if (loan.users > 0) return;
  if (lent.get(path) === loan) lent.delete(path);
  loan.controller.abort();
  loan.url.then((url) => url !== null && URL.revokeObjectURL(url));
}
