import { useMutation, useQueryClient } from "@tanstack/react-query";
import { answer, api } from "@/shared/api/client";
import { preferencesQuery } from "@/shared/api/preferences";
import type { PreferencesBody, PreferencesOut } from "@/shared/api/schema";

/** Saves a change of the preferences. It is made to what is kept by now, not to what was read a while ago. */
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
