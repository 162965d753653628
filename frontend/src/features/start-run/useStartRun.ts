import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { answer, api } from "@/shared/api/client";
import { useRequestKey } from "@/shared/api/useRequestKey";

/** A run's options besides its input. */
export interface Options {
  model?: string | undefined;
  user?: string | undefined;
  maxCost?: number | undefined;
  maxTokens?: number | undefined;
}

interface RunRequest {
  input: Record<string, unknown>;
  options: Options;
}

/** Starts a run and opens its page. Repeating the request, for example after a lost response, starts no second run. */
export function useStartRun(dagId: string, template?: string) {
  const navigate = useNavigate();
  const client = useQueryClient();
  const key = useRequestKey();
  return useMutation({
    mutationFn: (request: RunRequest) => {
      const body = { ...bodyOf(dagId, request), ...(template ? { template } : {}) };
      return answer(api.POST("/workflows/trigger", { body, params: { header: { "idempotency-key": key.of(body) } } }));
    },
    onSuccess: async ({ dag_id, dag_run_id }) => {
      key.forget(); // after a success, the same input means a second run
      void client.invalidateQueries({ queryKey: ["runs"] });
      await navigate({ to: "/runs/$dagId/$runId", params: { dagId: dag_id, runId: dag_run_id } });
    },
  });
}

function bodyOf(dagId: string, { input, options }: RunRequest) {
  const model = options.model?.trim();
  const user = options.user?.trim();
  const budget = {
    ...(options.maxCost === undefined ? {} : { max_cost_usd: options.maxCost }),
    ...(options.maxTokens === undefined ? {} : { max_tokens: options.maxTokens }),
  };
  return {
    dag_id: dagId,
    input_data: input,
    ...(model ? { model } : {}),
    ...(user ? { user_id: user } : {}),
    ...(Object.keys(budget).length > 0 ? { budget } : {}),
  };
}
