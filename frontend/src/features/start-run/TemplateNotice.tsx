import { Alert } from "@mantine/core";
import { IconTemplate } from "@tabler/icons-react";
import type { VersionOut } from "@/shared/api/schema";
import { AnchorLink } from "@/shared/ui/links";

/** Names the template that a run is created from, and what comes from it. */
export function TemplateNotice({ template }: { template: VersionOut }) {
  const agents = Array.isArray(template.definition.agents) ? template.definition.agents.length : 0;
  return (
    <Alert color="petrol" icon={<IconTemplate aria-hidden />}>
      {"From the template "}
      <AnchorLink
        to="/saved/$name"
        params={{ name: template.name }}
        search={{ version: template.version }}
        inherit
        fw={550}
      >
        {template.name}
      </AnchorLink>
      , version {template.version}
      {agents > 0 ? `, with its ${agents === 1 ? "agent" : `${agents} agents`}` : ""}. What you enter here overrides the
      template.
    </Alert>
  );
}
