import { queryOptions, useSuspenseQuery } from "@tanstack/react-query";
import { answer, api } from "./client";
import { ApiProblem } from "./problem";
import type { Me } from "./schema";

/** The signed-in user, or null. Scripts can't read the cookie, so the backend is asked. */
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

/** The signed-in user, on pages that require one. */
export function useMe(): Me {
  const { data } = useSuspenseQuery(sessionQuery);
  if (data === null) throw new ApiProblem(401, { detail: "You are signed out." });
  return data;
}

/** Whether a role may start, stop and retry runs. */
export function mayChange(role: Me["role"]): boolean {
  return role !== "Viewer" && role !== "Public";
}

/** Whether a role operates the service: sees and changes everything. */
export function isOperator(role: Me["role"]): boolean {
  return role === "Op" || role === "Admin";
}

/** Whether a role sees all users' runs; a User sees only their own. */
export function seesAll(role: Me["role"]): boolean {
  return role === "Viewer" || isOperator(role);
}

/** The explanation shown where a Viewer lacks actions. */
export const READS_ONLY =
  "The role Viewer is read-only. Starting, stopping and retrying runs requires the role User or higher.";
