import type { ErrorSchema } from "@rjsf/utils";
import type { FieldFault } from "@/shared/api/problem";

/** The API's errors about the member of a request that a form edits, such as `/input_data`, by form field. */
export function atTheirFields(faults: readonly FieldFault[], member: string): ErrorSchema {
  const root: Node = {};
  for (const { pointer, detail } of faults) {
    if (!pointer.startsWith(`${member}/`)) continue;
    let node = root;
    for (const part of pointer.slice(member.length + 1).split("/")) {
      const name = part.replaceAll("~1", "/").replaceAll("~0", "~");
      node = (node[name] ??= {}) as Node;
    }
    node.__errors = [...(node.__errors ?? []), capitalised(detail)];
  }
  return root as ErrorSchema;
}

type Node = { __errors?: string[] } & { [name: string]: Node | string[] | undefined };

function capitalised(detail: string): string {
  return detail.charAt(0).toUpperCase() + detail.slice(1);
}
