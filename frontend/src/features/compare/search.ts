/** The runs that are compared, in the URL: each `<dag_id>/<dag_run_id>`. */
export interface CompareSearch {
  left?: string;
  right?: string;
}

export function compareSearch(search: Record<string, unknown>): CompareSearch {
  const run = (value: unknown) => (typeof value === "string" && /^[^/]+\/./.test(value) ? value : undefined);
  const [left, right] = [run(search.left), run(search.right)];
  return { ...(left ? { left } : {}), ...(right ? { right } : {}) };
}
