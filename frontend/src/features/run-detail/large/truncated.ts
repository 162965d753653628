import type { SnapshotOut, Truncated } from "@/shared/api/schema";

/** Whether a value is what the API sends instead of a large input or result. */
export function isTruncated(value: unknown): value is Truncated {
  return (
    typeof value === "object" &&
    value !== null &&
    "truncated" in value &&
    value.truncated === true &&
    "excerpt" in value &&
    "url" in value &&
    typeof value.url === "string" &&
    value.url.startsWith("/workflow-status/")
  );
}

/** The run's input; empty if it is too large to be part of the snapshot. */
export function smallInput({ input_data: input }: Pick<SnapshotOut, "input_data">): Record<string, unknown> {
  return isTruncated(input) ? {} : input;
}
