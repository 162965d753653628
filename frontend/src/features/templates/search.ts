/** The list of templates as it stands in the address. */
export interface TemplatesSearch {
  /** A part of the name or description. */
  q?: string;
  dag?: string;
  /** Without it: those that can be run. */
  show?: "retired" | "all";
}

export function templatesSearch({ q, dag, show }: Record<string, unknown>): TemplatesSearch {
  return {
    ...(typeof q === "string" && q.trim() ? { q: q.trim().slice(0, 100) } : {}),
    ...(typeof dag === "string" && dag ? { dag } : {}),
    ...(show === "retired" || show === "all" ? { show } : {}),
  };
}

/** A template's page as it stands in the address. */
export interface TemplateSearch {
  /** The version that is shown; without it the active or latest one. */
  version?: number;
  /** The version that it is compared with. */
  against?: number;
}

export function templateSearch({ version, against }: Record<string, unknown>): TemplateSearch {
  return {
    ...(isVersion(version) ? { version } : {}),
    ...(isVersion(against) ? { against } : {}),
  };
}

/** What a new template or version begins as. */
export interface DraftSearch {
  /** A template's name, … */
  from?: string;
  /** … and which version of it. */
  version?: number;
}

export function draftSearch({ from, version }: Record<string, unknown>): DraftSearch {
  return {
    ...(typeof from === "string" && from ? { from } : {}),
    ...(isVersion(version) ? { version } : {}),
  };
}

function isVersion(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) > 0;
}
