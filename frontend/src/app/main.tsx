import "@fontsource-variable/geist/wght.css";
import "@fontsource-variable/geist-mono/wght.css";
import "@mantine/core/styles.css";
import "@mantine/notifications/styles.css";
import "@/shared/ui/global.css";
import { MantineProvider } from "@mantine/core";
import { Notifications } from "@mantine/notifications";
import { QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { sessionQuery } from "@/shared/api/session";
import { theme, variables } from "@/shared/ui/theme";
import { makeQueryClient } from "./query-client";
import { makeRouter } from "./router";
import { reloadOnStaleCode } from "./stale-code";

reloadOnStaleCode();

const queryClient = makeQueryClient(() => {
  const { pathname, href } = router.state.location;
  if (pathname === "/sign-in") return;
  // Leave the pages that need a signed-in user first.
  void router
    .navigate({ to: "/sign-in", search: { from: href } })
    .then(() => queryClient.setQueryData(sessionQuery.queryKey, null));
});
const router = makeRouter(queryClient);

const root = document.getElementById("root");
if (root === null) throw new Error("index.html has no #root");
createRoot(root).render(
  <StrictMode>
    <MantineProvider theme={theme} cssVariablesResolver={variables} defaultColorScheme="auto">
      <QueryClientProvider client={queryClient}>
        <RouterProvider router={router} />
        <Notifications position="bottom-right" />
      </QueryClientProvider>
    </MantineProvider>
  </StrictMode>,
);
