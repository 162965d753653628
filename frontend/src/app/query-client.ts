import { MutationCache, QueryCache, QueryClient } from "@tanstack/react-query";
import { ApiProblem, asProblem } from "@/shared/api/problem";

/** The cache of API responses. `onSignedOut` is called when the API answers that the session is over. */
export function makeQueryClient(onSignedOut: () => void): QueryClient {
  const onError = (error: unknown) => {
    if (error instanceof ApiProblem && error.status === 401) onSignedOut();
  };
  return new QueryClient({
    queryCache: new QueryCache({ onError }),
    mutationCache: new MutationCache({
      // A failed sign-in has the same status; there it means that the password is wrong.
      onError: (error, _given, _context, mutation) => {
        if (mutation.meta?.signsIn !== true) onError(error);
      },
    }),
    defaultOptions: {
      queries: {
        staleTime: 5_000,
        retry: (failures, error) => asProblem(error).passing && failures < 2,
        retryDelay: (failures, error) => (asProblem(error).retryAfter ?? Math.min(2 ** failures, 8)) * 1000,
      },
      mutations: { retry: false },
    },
  });
}
