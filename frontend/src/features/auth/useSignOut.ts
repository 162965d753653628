import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { answer, api } from "@/shared/api/client";

/** Signs out: the cookie goes, and everything that was read with it. */
export function useSignOut() {
  const client = useQueryClient();
  const navigate = useNavigate();
  return useMutation({
    mutationFn: () => answer(api.POST("/auth/logout")),
    onSuccess: async () => {
      // First away from the pages that need somebody who is signed in.
      await navigate({ to: "/sign-in" });
      client.clear();
    },
  });
}
