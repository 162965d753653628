import { useMutation, useQueryClient } from "@tanstack/react-query";
import { answer, api } from "@/shared/api/client";
import { preferencesQuery } from "@/shared/api/preferences";
import type { PreferencesBody, PreferencesOut } from "@/shared/api/schema";

/** Saves a change to the preferences. It is applied to the current ones, not to those read earlier. */
export function useSavePreferences() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: async (change: (known: PreferencesOut) => PreferencesBody) => {
      const known = await client.query({ ...preferencesQuery, staleTime: 0 });
      return answer(api.PUT("/users/me/preferences", { body: change(known) }));
    },
    onSuccess: (saved) => client.setQueryData(preferencesQuery.queryKey, saved),
  });
}
