/** Whether pulls are previewed: the user's choice, for all pickers, which the browser remembers and no workflow does. */

const KEY = "MorphAndDrag.Preview";
const OFF = "off";

let isOn = remembered() !== OFF;

/** @type {Set<() => void>} */
const followers = new Set();

export function isPreviewOn() {
  return isOn;
}

export function togglePreview() {
  isOn = !isOn;
  try {
    localStorage.setItem(KEY, isOn ? "on" : OFF);
  } catch {
    // A browser that keeps nothing forgets it with the page.
  }
  for (const follow of followers) follow();
}

/**
 * Call a function after every change, until `unfollowPreview`.
 * @param {() => void} follow
 */
export function followPreview(follow) {
  followers.add(follow);
}

/** @param {() => void} follow */
export function unfollowPreview(follow) {
  followers.delete(follow);
}

function remembered() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}
