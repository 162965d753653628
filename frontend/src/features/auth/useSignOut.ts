import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { answer, api } from "@/shared/api/client";

/** Signs out: deletes the cookie and everything that was read with it. */
export function useSignOut() {
  const client = useQueryClient();
  const navigate = useNavigate();
  return useMutation({
    mutationFn: () => answer(api.POST("/auth/logout")),
    onSuccess: async () => {
      // Leave the pages that need a signed-in user first.
      await navigate({ to: "/sign-in" });
      client.clear();
    },
  });
}
