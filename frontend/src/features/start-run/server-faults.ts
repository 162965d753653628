import type { ErrorSchema } from "@rjsf/utils";
import type { FieldFault } from "@/shared/api/problem";

const INPUT = "/input_data";

/** Whether a pointer from the API points into the run's input. */
export function isInput(pointer: string): boolean {
  return pointer.startsWith(`${INPUT}/`);
}

/** The API's errors about the run's input, by form field. */
export function atTheirFields(faults: readonly FieldFault[]): ErrorSchema {
  const root: Node = {};
  for (const { pointer, detail } of faults) {
    if (!isInput(pointer)) continue;
    let node = root;
    for (const part of pointer.slice(INPUT.length + 1).split("/")) {
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
