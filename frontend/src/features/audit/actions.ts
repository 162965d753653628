import type { AuditEntry } from "@/shared/api/schema";

export type Action = AuditEntry["action"];
export type Outcome = AuditEntry["outcome"];

/** What each action is called on the page. */
export const ACTIONS: Record<Action, string> = {
  sign_in: "Signed in",
  "sign_in.airflow": "Signed in through Airflow",
  sign_out: "Signed out",
  "sign_out.everywhere": "Signed a user out everywhere",
  "token.create": "Created a service token",
  "token.revoke": "Revoked a service token",
  "role.change": "Role changed in Airflow",
  "run.trigger": "Started a run",
  "run.trigger_batch": "Started a batch of runs",
  "run.cancel": "Cancelled a run",
  "run.retry": "Retried a run",
  "run.fork": "Forked a run",
  "template.create": "Created a template",
  "template.add_version": "Added a template version",
  "template.activate": "Activated a template version",
  "template.retire": "Retired a template",
  "schedule.set": "Set a schedule",
  "schedule.delete": "Deleted a schedule",
  "schedule.stop": "Schedule was stopped",
  "preferences.change": "Changed preferences",
  "limits.change": "Changed limits",
  "question.answer": "Answered a question",
  "question.assign": "Handed a question on",
  "image.upload": "Uploaded a picture",
  "notification.resend": "Resent a notification",
  "request.refused": "Request refused",
};

export const OUTCOMES: Record<Outcome, { label: string; color: string }> = {
  done: { label: "Done", color: "green" },
  refused: { label: "Refused", color: "red" },
  failed: { label: "Failed", color: "orange" },
};

/** An entry's details in one line: `status 403, reason …`. */
export function detailText(details: Record<string, unknown>): string {
  return Object.entries(details)
    .filter(([, value]) => value !== null && value !== false)
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${Array.isArray(value) ? value.join(", ") : String(value)}`)
    .join(" · ");
}
