import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { answer, api } from "@/shared/api/client";
import { forgetDrafts } from "@/shared/questions/drafts";

/** Signs out, here or on all devices: the token is revoked, and everything that was read with it is forgotten. */
export function useSignOut(where: "here" | "everywhere" = "here") {
  const client = useQueryClient();
  const navigate = useNavigate();
  return useMutation({
    mutationFn: () => answer(where === "here" ? api.POST("/auth/logout") : api.POST("/users/me/sign-out")),
    onSuccess: async () => {
      // Leave the pages that need a signed-in user first.
      await navigate({ to: "/sign-in" });
      client.clear();
      forgetDrafts();
    },
  });
}
