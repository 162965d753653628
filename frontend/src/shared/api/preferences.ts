import { queryOptions } from "@tanstack/react-query";
import { answer, api } from "./client";

/** The signed-in user's preferences. */
export const preferencesQuery = queryOptions({
  queryKey: ["preferences"],
  queryFn: () => answer(api.GET("/users/me/preferences")),
  staleTime: 30_000,
});
