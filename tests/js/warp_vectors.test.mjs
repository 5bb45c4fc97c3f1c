import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { distance } from "../../js/point_geometry.js";
import { shareNear, steadyField } from "../../js/warp_field.js";

const { size, cases } = JSON.parse(readFileSync(new URL("../warp_vectors.json", import.meta.url), "utf8"));

for (const { name, pairs, pins, parts, radius, places, came } of cases) {
  test(name, () => {
    const points = { pairs: pairs.map(([handle, target]) => ({ handle, target })), pins };
    const field = steadyField(points, parts, radius === null ? undefined : shareNear(points.pairs, size, radius));
    for (const [index, place] of places.entries()) assert.ok(distance(field(place), came[index]) < 1e-6, `${place}`);
  });
}
