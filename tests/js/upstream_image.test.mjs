import assert from "node:assert/strict";
import { test } from "node:test";

import { imageFile } from "../../js/upstream_image.js";

test("a loader's value names a file, its folder and its type", () => {
  const files = {
    "cat.png": ["cat.png", "", "input"],
    "a/b/cat.png": ["cat.png", "a/b", "input"],
    "cat.png [output]": ["cat.png", "", "output"],
    "clipspace/clipspace-mask-17.png [input]": ["clipspace-mask-17.png", "clipspace", "input"],
    "shot [1].png [temp]": ["shot [1].png", "", "temp"],
    "shot [1].png": ["shot [1].png", "", "input"],
  };
  for (const [name, [filename, subfolder, type]] of Object.entries(files)) {
    assert.deepEqual(imageFile(name), { filename, subfolder, type });
  }
});
