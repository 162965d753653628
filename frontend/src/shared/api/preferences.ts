import { queryOptions } from "@tanstack/react-query";
import { answer, api } from "./client";

/** What the signed-in user has chosen. */
export const preferencesQuery = queryOptions({
  queryKey: ["preferences"],
  queryFn: () => answer(api.GET("/users/me/preferences")),
  staleTime: 30_000,
});
