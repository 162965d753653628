import { infiniteQueryOptions } from "@tanstack/react-query";
import { answer, api } from "@/shared/api/client";
import { isActive } from "@/shared/ui/states";
import { type RunsSearch, SINCE } from "./search";

const PAGE = 50;
const LIVE = 2_000;
const CALM = 15_000;

/** The runs that match the filters, newest first, page by page; refreshed faster while some are active. */
export function runsQuery(filters: RunsSearch) {
  return infiniteQueryOptions({
    queryKey: ["runs", filters],
    queryFn: ({ pageParam }) =>
      answer(
        api.GET("/workflow-status", {
          params: {
            query: {
              limit: PAGE,
              ...(filters.dag ? { dag_id: filters.dag } : {}),
              ...(filters.state ? { state: filters.state } : {}),
              ...(filters.user ? { user_id: filters.user } : {}),
              ...(filters.since ? { since: new Date(Date.now() - SINCE[filters.since] * 1000).toISOString() } : {}),
              ...(pageParam ? { cursor: pageParam } : {}),
            },
          },
        }),
      ),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
    refetchInterval: (query) =>
      query.state.data?.pages.some((page) => page.executions.some((run) => isActive(run.state))) ? LIVE : CALM,
  });
}
