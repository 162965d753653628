import { useMutation, useQueryClient } from "@tanstack/react-query";
import { answer, api } from "@/shared/api/client";
import type { Me, TemplateSummary } from "@/shared/api/schema";
import { isOperator, mayChange } from "@/shared/api/session";

/** Activates a version or retires the template. */
export function useTemplateChanges(name: string) {
  const client = useQueryClient();
  const onSuccess = () => client.invalidateQueries({ queryKey: ["templates"] });
  const activate = useMutation({
    mutationFn: (version: number) =>
      answer(api.POST("/templates/{name}/versions/{version}/activate", { params: { path: { name, version } } })),
    onSuccess,
  });
  const retire = useMutation({
    mutationFn: () => answer(api.POST("/templates/{name}/retire", { params: { path: { name } } })),
    onSuccess,
  });
  return { activate, retire };
}

/** Why the user may not change a template; null if they may. */
export function readOnlyReason(me: Me, template: Pick<TemplateSummary, "owner">): string | null {
  if (!mayChange(me.role)) return "The role Viewer is read-only. Changing templates requires the role User or higher.";
  if (isOperator(me.role) || template.owner === me.user_id) return null;
  return `Only ${template.owner ?? "its owner"}, Op and Admin can change this template. You can copy it.`;
}
