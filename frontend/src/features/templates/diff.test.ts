import { describe, expect, it } from "vitest";
import { diff } from "./diff";

/** As `git diff` would print it. */
const shown = (left: string, right: string) =>
  diff(left, right).flatMap((row) =>
    row.same
      ? [`  ${row.left?.text ?? ""}`]
      : [...(row.left ? [`- ${row.left.text}`] : []), ...(row.right ? [`+ ${row.right.text}`] : [])],
  );

describe("a diff", () => {
  it("of identical texts is empty", () => {
    expect(diff("a\nb", "a\nb").every((row) => row.same)).toBe(true);
  });

  it("shows added, removed and changed lines with both sides' line numbers", () => {
    expect(shown("a\nb\nc\nd", "a\nx\nc\nd\ne")).toEqual(["  a", "- b", "+ x", "  c", "  d", "+ e"]);
    const added = diff("a\nc", "a\nb\nc");
    expect(added[1]).toEqual({ left: null, right: { number: 2, text: "b" }, same: false });
    expect(added[2]?.left?.number).toBe(2);
    expect(added[2]?.right?.number).toBe(3);
  });

  it("finds unchanged lines between two changes", () => {
    expect(shown("1\n2\n3\n4\n5", "0\n2\n3\n9\n5")).toEqual(["- 1", "+ 0", "  2", "  3", "- 4", "+ 9", "  5"]);
  });

  it.each([
    ["", "a"],
    ["a\nb\nc", ""],
    ["x\na\nb\na", "a\nb\na\nx"],
    ["a\na\na", "a"],
  ])("loses no line of %j and %j", (left, right) => {
    const rows = diff(left, right);
    expect(rows.flatMap((row) => (row.left ? [row.left.text] : [])).join("\n")).toBe(left);
    expect(rows.flatMap((row) => (row.right ? [row.right.text] : [])).join("\n")).toBe(right);
  });

  it("doesn't compare very large texts in detail", () => {
    const many = (prefix: string) => Array.from({ length: 3_000 }, (_, index) => `${prefix}${index}`).join("\n");
    expect(diff(many("a"), many("b")).some((row) => row.same)).toBe(false);
  });
});
