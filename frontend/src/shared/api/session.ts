import { queryOptions, useSuspenseQuery } from "@tanstack/react-query";
import { answer, api } from "./client";
import { ApiProblem } from "./problem";
import type { Me } from "./schema";

/** Who is signed in; null: nobody. The cookie itself is out of reach for scripts, so the backend is asked. */
export const sessionQuery = queryOptions({
  queryKey: ["session"],
  queryFn: async (): Promise<Me | null> => {
    try {
      return await answer(api.GET("/users/me"));
    } catch (error) {
      if (error instanceof ApiProblem && error.status === 401) return null;
      throw error;
    }
  },
  staleTime: Infinity,
  gcTime: Infinity,
});

/** The signed-in user, on pages that only they see. */
export function useMe(): Me {
  const { data } = useSuspenseQuery(sessionQuery);
  if (data === null) throw new ApiProblem(401, { detail: "You are signed out." });
  return data;
}

/** Whether a role may start, stop and retry runs. */
export function mayChange(role: Me["role"]): boolean {
  return role !== "Viewer" && role !== "Public";
}

/** Whether a role runs the service: sees and changes what is anybody's. */
export function isOperator(role: Me["role"]): boolean {
  return role === "Op" || role === "Admin";
}

/** Whether a role sees everybody's runs; a User sees their own. */
export function seesAll(role: Me["role"]): boolean {
  return role === "Viewer" || isOperator(role);
}

/** Why somebody may not, to be shown beside what is not there for them. */
export const READS_ONLY = "Your role Viewer reads only. Starting, stopping and retrying needs the role User or higher.";
