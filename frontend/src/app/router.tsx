import type { QueryClient } from "@tanstack/react-query";
import {
  createRootRouteWithContext,
  createRoute,
  createRouter,
  lazyRouteComponent,
  Outlet,
  parseSearchWith,
  redirect,
  stringifySearchWith,
} from "@tanstack/react-router";
import { parse, stringify } from "@/shared/api/exact-json";
import { sessionQuery } from "@/shared/api/session";
import { auditSearch } from "@/features/audit/search";
import { compareSearch } from "@/features/compare/search";
import { dashboardSearch } from "@/features/dashboard/search";
import { inboxSearch } from "@/features/inbox/search";
import { runPageSearch } from "@/features/run-detail/search";
import { runsSearch } from "@/features/runs/search";
import { runSearch } from "@/features/start-run/search";
import { draftSearch, templateSearch, templatesSearch } from "@/features/templates/search";
import { AppFrame } from "./AppFrame";
import { NotFoundPage } from "./NotFoundPage";
import { PageError } from "./PageError";
import { PagePending } from "./PagePending";
import { StartPending } from "./StartPending";

const root = createRootRouteWithContext<{ queryClient: QueryClient }>()({ component: Outlet });

const signIn = createRoute({
  getParentRoute: () => root,
  path: "/sign-in",
  // The page to return to after signing in. Only paths on this origin are followed.
  validateSearch: (search: Record<string, unknown>): { from?: string } =>
    typeof search.from === "string" && /^\/(?![/\\])/.test(search.from) ? { from: search.from } : {},
  component: lazyRouteComponent(() => import("@/features/auth/SignInPage"), "SignInPage"),
});

/** The parent of all routes that need a signed-in user. */
const signedIn = createRoute({
  getParentRoute: () => root,
  id: "signed-in",
  component: AppFrame,
  pendingComponent: StartPending,
  beforeLoad: async ({ context, location }) => {
    const me = await context.queryClient.query({ ...sessionQuery, staleTime: "static" });
    if (me === null) throw redirect({ to: "/sign-in", search: { from: location.href } });
  },
});

const index = createRoute({
  getParentRoute: () => signedIn,
  path: "/",
  beforeLoad: () => {
    throw redirect({ to: "/runs" });
  },
});

const runs = createRoute({
  getParentRoute: () => signedIn,
  path: "/runs",
  validateSearch: runsSearch,
  component: lazyRouteComponent(() => import("@/features/runs/RunsPage"), "RunsPage"),
});

const runPage = createRoute({
  getParentRoute: () => signedIn,
  path: "/runs/$dagId/$runId",
  validateSearch: runPageSearch,
  component: lazyRouteComponent(() => import("@/features/run-detail/RunPage"), "RunPage"),
});

const compare = createRoute({
  getParentRoute: () => signedIn,
  path: "/compare",
  validateSearch: compareSearch,
  component: lazyRouteComponent(() => import("@/features/compare/ComparePage"), "ComparePage"),
});

const workflows = createRoute({
  getParentRoute: () => signedIn,
  path: "/run",
  component: lazyRouteComponent(() => import("@/features/start-run/WorkflowsPage"), "WorkflowsPage"),
});

const run = createRoute({
  getParentRoute: () => signedIn,
  path: "/run/$dagId",
  validateSearch: runSearch,
  component: lazyRouteComponent(() => import("@/features/start-run/StartPage"), "StartPage"),
});

const dashboard = createRoute({
  getParentRoute: () => signedIn,
  path: "/dashboard",
  validateSearch: dashboardSearch,
  component: lazyRouteComponent(() => import("@/features/dashboard/DashboardPage"), "DashboardPage"),
});

const templates = createRoute({
  getParentRoute: () => signedIn,
  path: "/saved",
  validateSearch: templatesSearch,
  component: lazyRouteComponent(() => import("@/features/templates/TemplatesPage"), "TemplatesPage"),
});

const newTemplate = createRoute({
  getParentRoute: () => signedIn,
  path: "/new-template",
  validateSearch: draftSearch,
  component: lazyRouteComponent(() => import("@/features/templates/NewTemplatePage"), "NewTemplatePage"),
});

const template = createRoute({
  getParentRoute: () => signedIn,
  path: "/saved/$name",
  validateSearch: templateSearch,
  component: lazyRouteComponent(() => import("@/features/templates/TemplatePage"), "TemplatePage"),
});

const newVersion = createRoute({
  getParentRoute: () => signedIn,
  path: "/saved/$name/edit",
  validateSearch: draftSearch,
  component: lazyRouteComponent(() => import("@/features/templates/NewVersionPage"), "NewVersionPage"),
});

const inbox = createRoute({
  getParentRoute: () => signedIn,
  path: "/inbox",
  validateSearch: inboxSearch,
  component: lazyRouteComponent(() => import("@/features/inbox/InboxPage"), "InboxPage"),
});

const question = createRoute({
  getParentRoute: () => signedIn,
  path: "/inbox/$questionId",
  validateSearch: inboxSearch,
  component: lazyRouteComponent(() => import("@/features/inbox/QuestionPage"), "QuestionPage"),
});

const settings = createRoute({
  getParentRoute: () => signedIn,
  path: "/settings",
  component: lazyRouteComponent(() => import("@/features/settings/SettingsPage"), "SettingsPage"),
});

const audit = createRoute({
  getParentRoute: () => signedIn,
  path: "/settings/audit",
  validateSearch: auditSearch,
  component: lazyRouteComponent(() => import("@/features/audit/AuditPage"), "AuditPage"),
});

/** Any other path, shown inside the frame. */
const elsewhere = createRoute({ getParentRoute: () => signedIn, path: "$", component: NotFoundPage });

const routeTree = root.addChildren([
  signIn,
  signedIn.addChildren([
    index,
    dashboard,
    runs,
    runPage,
    compare,
    workflows,
    run,
    templates,
    newTemplate,
    template,
    newVersion,
    inbox,
    question,
    settings,
    audit,
    elsewhere,
  ]),
]);

export function makeRouter(queryClient: QueryClient) {
  return createRouter({
    routeTree,
    context: { queryClient },
    // A run to start may be given in the URL, with its numbers as they were written.
    parseSearch: parseSearchWith(parse),
    stringifySearch: stringifySearchWith(stringify, parse),
    defaultPreload: "intent",
    defaultPreloadStaleTime: 0,
    scrollRestoration: true,
    defaultErrorComponent: PageError,
    defaultPendingComponent: PagePending,
    defaultNotFoundComponent: NotFoundPage,
  });
}

declare module "@tanstack/react-router" {
  interface Register {
    router: ReturnType<typeof makeRouter>;
  }
}
