import { Button, Group, SegmentedControl, Stack, Text, Textarea } from "@mantine/core";
import { IconCheck, IconSend, IconX } from "@tabler/icons-react";
import { useId, useState } from "react";
import { approvalBody, type Decision, type DecisionType, type ToolCall } from "./asks";
import type { AnswerFormProps } from "./AnswerPanel";
import { ArgumentsEditor } from "./ArgumentsEditor";
import classes from "./question.module.css";
import { Value } from "./QuestionContent";

const LABELS: Record<DecisionType, string> = { approve: "Approve", edit: "Edit", reject: "Reject", respond: "Respond" };

/** What someone has chosen for a call; `args` is null while an argument is no value. */
interface Choice {
  type: DecisionType | null;
  args: ToolCall["args"] | null;
  message: string;
}

interface Props extends AnswerFormProps {
  calls: ToolCall[];
  single: boolean;
}

/** Tool calls, each of which takes a decision. */
export function ApprovalForm({ calls, single, disabled, pending, kept, onTouched, onSubmit }: Props) {
  const [choices, setChoices] = useState<Choice[]>(() => {
    const before = Array.isArray(kept) && kept.length === calls.length ? (kept as Choice[]) : null;
    // Of one call the usual decision is offered; of several none, so that nobody approves one unseen.
    const usual = (call: ToolCall) => (calls.length === 1 ? (call.allows[0] ?? null) : null);
    return before ?? calls.map((call) => ({ type: usual(call), args: call.args, message: "" }));
  });
  const chosen = (next: Choice[]) => {
    setChoices(next);
    onTouched(next.map((one, at) => ({ ...one, args: one.args ?? calls[at]?.args })));
  };
  const change = (index: number, part: Partial<Choice>) =>
    chosen(choices.map((one, at) => (at === index ? { ...one, ...part } : one)));
  const everywhere = (type: DecisionType) => calls.every((call) => call.allows.includes(type));
  const decideAll = (type: DecisionType) => chosen(choices.map((one) => ({ ...one, type })));
  const decisions = calls.flatMap((call, index) => decisionOf(call, choices[index]) ?? []);
  const ready = decisions.length === calls.length;
  const all = (type: DecisionType) => choices.every((choice) => choice.type === type);
  const label =
    calls.length > 1
      ? all("approve")
        ? `Approve all ${calls.length}`
        : all("reject")
          ? `Reject all ${calls.length}`
          : `Send ${calls.length} decisions`
      : choices[0]?.type === "edit"
        ? "Approve with changes"
        : choices[0]?.type === "respond"
          ? "Send response"
          : LABELS[choices[0]?.type ?? "approve"];
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (ready && !disabled) onSubmit(approvalBody(decisions, single));
      }}
    >
      <Stack gap="md" className={classes.answer}>
        {calls.length > 1 && (everywhere("approve") || everywhere("reject")) ? (
          <Group gap="xs" role="group" aria-label="Decide all">
            {everywhere("approve") ? (
              <Button
                type="button"
                variant="default"
                size="xs"
                disabled={disabled}
                onClick={() => decideAll("approve")}
              >
                Choose approve for all
              </Button>
            ) : null}
            {everywhere("reject") ? (
              <Button type="button" variant="default" size="xs" disabled={disabled} onClick={() => decideAll("reject")}>
                Choose reject for all
              </Button>
            ) : null}
          </Group>
        ) : null}
        {calls.map((call, index) => (
          <Call
            key={index}
            call={call}
            place={calls.length > 1 ? `${index + 1} of ${calls.length}: ` : ""}
            choice={choices[index] ?? { type: null, args: null, message: "" }}
            disabled={disabled}
            onChange={(part) => change(index, part)}
          />
        ))}
        <Group>
          <Button
            type="submit"
            color={all("reject") ? "red" : undefined}
            loading={pending}
            disabled={disabled || !ready}
            leftSection={
              all("approve") ? (
                <IconCheck size={16} aria-hidden />
              ) : all("reject") ? (
                <IconX size={16} aria-hidden />
              ) : (
                <IconSend size={16} aria-hidden />
              )
            }
          >
            {label}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

interface CallProps {
  call: ToolCall;
  place: string;
  choice: Choice;
  disabled: boolean;
  onChange: (part: Partial<Choice>) => void;
}

function Call({ call, place, choice, disabled, onChange }: CallProps) {
  const id = useId();
  const [edited] = useState(choice.args ?? call.args);
  const args = Object.entries(call.args);
  return (
    <section className={classes.call} aria-labelledby={id}>
      <Text id={id} fw={600} style={{ overflowWrap: "anywhere" }}>
        {place}
        <span className="mono">{call.name}</span>
      </Text>
      {call.description ? (
        <Text size="sm" c="dimmed" mt={2} style={{ whiteSpace: "pre-wrap", overflowWrap: "anywhere" }}>
          {call.description}
        </Text>
      ) : null}
      <Stack gap="sm" mt="sm">
        {choice.type === "edit" ? null : args.length === 0 ? (
          <Text size="sm" c="dimmed">
            Without arguments
          </Text>
        ) : (
          <dl className={classes.parts}>
            {args.map(([name, value]) => (
              <div key={name}>
                <dt className="mono">{name}</dt>
                <dd>
                  <Value value={value} label={name} />
                </dd>
              </div>
            ))}
          </dl>
        )}
        {/* It stays mounted, and with it what has been typed. */}
        <div hidden={choice.type !== "edit"}>
          {call.allows.includes("edit") ? (
            <ArgumentsEditor initial={edited} disabled={disabled} onChange={(next) => onChange({ args: next })} />
          ) : null}
        </div>
        <SegmentedControl
          aria-label={`Decision about ${call.name}`}
          data={call.allows.map((type) => ({ value: type, label: LABELS[type] }))}
          value={choice.type ?? ""}
          disabled={disabled}
          onChange={(type) => onChange({ type: type as DecisionType })}
          fullWidth
        />
        {choice.type === "reject" || choice.type === "respond" ? (
          <Textarea
            label={choice.type === "reject" ? "Why (optional)" : "Response"}
            description={
              choice.type === "reject"
                ? "The agent reads it; the tool isn't called"
                : "The agent gets it in place of the tool's result"
            }
            required={choice.type === "respond"}
            disabled={disabled}
            autosize
            minRows={2}
            maxRows={12}
            value={choice.message}
            onChange={(event) => onChange({ message: event.currentTarget.value })}
          />
        ) : null}
      </Stack>
    </section>
  );
}

/** The decision that was made about a call; null while it is incomplete. */
function decisionOf(call: ToolCall, choice: Choice | undefined): Decision | null {
  const message = choice?.message.trim() ?? "";
  switch (choice?.type) {
    case "approve":
      return { type: "approve" };
    case "edit":
      return choice.args && { type: "edit", edited_action: { name: call.name, args: choice.args } };
    case "reject":
      return message ? { type: "reject", message } : { type: "reject" };
    case "respond":
      return message ? { type: "respond", message } : null;
    default:
      return null;
  }
}
