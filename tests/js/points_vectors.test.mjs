import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { parsePoints } from "../../js/point_value.js";

const { size, cases, pinned } = JSON.parse(readFileSync(new URL("../points_vectors.json", import.meta.url), "utf8"));

/** What the picker makes of a text, in the words of the vectors. */
function reading(text) {
  const { pairs, pins, unfinished, problem } = parsePoints(text, size);
  if (problem !== null) return { becomes: "refused" };
  const isUnfinished = unfinished !== null || pairs.some(({ handle, target }) => String(handle) === String(target));
  if (isUnfinished) return { becomes: "unfinished" };
  if (pairs.length === 0) return { becomes: "nothing", pins };
  return { becomes: "pairs", pairs: pairs.map(({ handle, target }) => [handle, target]), pins };
}

for (const { name, text, becomes, pairs, pins } of [...cases, ...pinned]) {
  test(`${name}: ${becomes}`, () => {
    const actual = reading(text);
    assert.equal(actual.becomes, becomes);
    for (const [index, number] of (pairs ?? []).flat(2).entries()) {
      assert.ok(Math.abs(actual.pairs.flat(2)[index] - number) < 1e-12);
    }
    assert.equal(actual.pairs?.length, pairs?.length);
    assert.deepEqual(actual.pins ?? [], pins ?? []);
  });
}
