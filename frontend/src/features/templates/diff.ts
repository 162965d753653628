/** A line on the left, on the right, or on both sides. */
export interface DiffRow {
  left: { number: number; text: string } | null;
  right: { number: number; text: string } | null;
  same: boolean;
}

/** With more pairs of lines than this, the middle isn't compared in detail but treated as changed. */
const CLOSE_LOOK = 4_000_000;

/** Compares two texts line by line; lines changed in the same place are paired. */
export function diff(left: string, right: string): DiffRow[] {
  const [a, b] = [left.split("\n"), right.split("\n")];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
  const rows: DiffRow[] = [];
  const both = (i: number, j: number) => rows.push({ left: line(a, i), right: line(b, j), same: true });
  for (let i = 0; i < start; i += 1) both(i, i);
  let [i, j] = [start, start];
  const changed = (toI: number, toJ: number) => {
    for (; i < toI || j < toJ; i += 1, j += 1) {
      rows.push({ left: i < toI ? line(a, i) : null, right: j < toJ ? line(b, j) : null, same: false });
    }
    [i, j] = [toI, toJ];
  };
  for (const [x, y] of common(a.slice(start, a.length - end), b.slice(start, b.length - end))) {
    changed(start + x, start + y);
    both(i, j);
    [i, j] = [i + 1, j + 1];
  }
  changed(a.length - end, b.length - end);
  for (let k = end; k > 0; k -= 1) both(a.length - k, b.length - k);
  return rows;
}

function line(all: string[], index: number): { number: number; text: string } {
  return { number: index + 1, text: all[index] ?? "" };
}

/** A longest common subsequence, as pairs of indexes. */
function common(a: string[], b: string[]): [number, number][] {
  if (a.length * b.length > CLOSE_LOOK) return [];
  const width = b.length + 1;
  const longest = new Uint16Array((a.length + 1) * width);
  const at = (x: number, y: number) => longest[x * width + y] ?? 0;
  for (let x = a.length - 1; x >= 0; x -= 1) {
    for (let y = b.length - 1; y >= 0; y -= 1) {
      longest[x * width + y] = a[x] === b[y] ? at(x + 1, y + 1) + 1 : Math.max(at(x + 1, y), at(x, y + 1));
    }
  }
  const pairs: [number, number][] = [];
  for (let [x, y] = [0, 0]; x < a.length && y < b.length;) {
    if (a[x] === b[y]) pairs.push([x++, y++]);
    else if (at(x + 1, y) >= at(x, y + 1)) x += 1;
    else y += 1;
  }
  return pairs;
}
