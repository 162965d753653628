import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { answer, api } from "@/shared/api/client";
import { sessionQuery } from "@/shared/api/session";

/** Signs out: the cookie goes, and everything that was read with it. */
export function useSignOut() {
  const client = useQueryClient();
  const navigate = useNavigate();
  return useMutation({
    mutationFn: () => answer(api.POST("/auth/logout")),
    onSuccess: async () => {
      client.setQueryData(sessionQuery.queryKey, null);
      await navigate({ to: "/sign-in" });
      client.removeQueries({ predicate: (query) => query.queryKey[0] !== "session" });
    },
  });
}
