/** Picture data in a result. Results are whatever agents return, so only well-formed data is used. */

import { rounded } from "@/shared/api/exact-json";

/** A piece of recognised text, in a box `[left, top, right, bottom]` in the picture's pixels. */
export interface TextRegion {
  text: string;
  box: [number, number, number, number];
  confidence: number | null;
}

export interface Picture {
  /** The agent that looked at it; null if the result is a single agent's. */
  agent: string | null;
  imageUrl: string;
  width: number;
  height: number;
  regions: TextRegion[];
}

/**
 * The pictures that the run's agents looked at, with the recognised text.
 *
 * A result doesn't name its picture: it is the one in the run's input.
 */
export function picturesOf(input: Record<string, unknown>, exactResult: unknown): Picture[] {
  const imageUrl = input.image_url;
  if (typeof imageUrl !== "string") return [];
  const result = rounded(exactResult);
  if (!isObject(result)) return [];
  const outputs: [string | null, unknown][] = isObject(result.results)
    ? Object.entries(result.results)
    : [[null, result.output ?? result]];
  const found: Picture[] = [];
  for (const [agent, output] of outputs) {
    if (!isObject(output) || !isObject(output.image)) continue;
    const { width, height } = output.image;
    if (!isSize(width) || !isSize(height)) continue;
    const regions = Array.isArray(output.text_regions) ? output.text_regions.flatMap(asRegion) : [];
    found.push({ agent, imageUrl, width, height, regions });
  }
  return found;
}

function asRegion(value: unknown): TextRegion[] {
  if (!isObject(value) || typeof value.text !== "string" || !Array.isArray(value.box)) return [];
  const [left, top, right, bottom] = value.box as unknown[];
  if (![left, top, right, bottom].every((edge) => typeof edge === "number" && Number.isFinite(edge))) return [];
  return [
    {
      text: value.text,
      box: [left, top, right, bottom] as TextRegion["box"],
      confidence: typeof value.confidence === "number" ? value.confidence : null,
    },
  ];
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isSize(value: unknown): value is number {
  return typeof value === "number" && value > 0;
}
