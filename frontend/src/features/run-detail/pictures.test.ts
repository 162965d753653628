import { describe, expect, it } from "vitest";
import { picturesOf } from "./pictures";

const image = { width: 800, height: 600, format: "PNG" };
const region = { text: "Total", box: [1, 2, 30, 40], confidence: 0.9 };
const input = { image_url: "sample://invoice" };

describe("pictures in a result", () => {
  it("are found in a single agent's result", () => {
    expect(picturesOf(input, { output: { answer: "", image, text_regions: [region] }, agent: "vision" })).toEqual([
      { agent: null, imageUrl: "sample://invoice", width: 800, height: 600, regions: [region] },
    ]);
  });

  it("are found in a team's result", () => {
    const result = { results: { seen: { image, text_regions: [] }, read: { summary: "no picture" } } };
    expect(picturesOf(input, result).map((picture) => picture.agent)).toEqual(["seen"]);
  });

  it.each([
    [null],
    ["text"],
    [{ output: null }],
    [{ output: { image: { width: "wide" } } }],
    [{ results: { seen: 5 } }],
  ])("are none in %j", (result) => expect(picturesOf(input, result)).toEqual([]));

  it("ignore malformed regions", () => {
    const regions = [
      region,
      { text: 5, box: [1, 2, 3, 4] },
      { text: "x", box: [1, 2, null, 4] },
      { text: "x", box: [1] },
    ];
    expect(picturesOf(input, { output: { image, text_regions: regions } })[0]?.regions).toEqual([region]);
  });
});
