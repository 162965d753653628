/** The state of the template list in the URL. */
export interface TemplatesSearch {
  /** Part of the name or description. */
  q?: string;
  dag?: string;
  /** Default: active templates. */
  show?: "retired" | "all";
}

export function templatesSearch({ q, dag, show }: Record<string, unknown>): TemplatesSearch {
  return {
    ...(typeof q === "string" && q.trim() ? { q: q.trim().slice(0, 100) } : {}),
    ...(typeof dag === "string" && dag ? { dag } : {}),
    ...(show === "retired" || show === "all" ? { show } : {}),
  };
}

/** The state of a template's page in the URL. */
export interface TemplateSearch {
  /** The version shown; by default the active or latest one. */
  version?: number;
  /** The version it is compared with. */
  against?: number;
}

export function templateSearch({ version, against }: Record<string, unknown>): TemplateSearch {
  return {
    ...(isVersion(version) ? { version } : {}),
    ...(isVersion(against) ? { against } : {}),
  };
}

/** The starting point of a new template or version. */
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
