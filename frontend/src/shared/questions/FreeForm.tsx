import { Button, Group, Radio, SegmentedControl, Stack, Text, Textarea } from "@mantine/core";
import { IconSend } from "@tabler/icons-react";
import { useState } from "react";
import { JsonText } from "../form/JsonText";
import { asJsonValue, draftOf, optionsOf, readsLikeYesOrNo } from "./asks";
import type { AnswerFormProps } from "./AnswerPanel";
import classes from "./question.module.css";

/** What is entered for each kind of answer, and which of them is meant. */
interface Entered {
  mode: "text" | "yes-no" | "json";
  text: string;
  yes: boolean | null;
  json: unknown;
  broken: boolean;
}

/** An answer to a question without a schema: a text, yes or no, or any JSON. */
export function FreeForm({ question, disabled, pending, problem, kept, onTouched, onSubmit }: AnswerFormProps) {
  const [entered, setEntered] = useState<Entered>(() => ({
    mode: readsLikeYesOrNo(question) ? "yes-no" : "text",
    text: "",
    yes: null,
    json: undefined,
    broken: false,
    ...(kept as Partial<Entered> | undefined),
  }));
  const { mode, text, yes, json, broken } = entered;
  const change = (part: Partial<Entered>) => {
    const next = { ...entered, ...part };
    setEntered(next);
    onTouched({ ...next, broken: false });
  };
  const draft = draftOf(question);
  const options = optionsOf(question);
  const meant = mode === "text" ? asJsonValue(text) : null;
  const faults = problem?.faults.map((fault) => fault.detail) ?? [];
  const value = mode === "text" ? text || undefined : mode === "yes-no" ? (yes ?? undefined) : json;
  const ready = value !== undefined && !(mode === "json" && broken);
  const type = (next: string) => change({ text: next });
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (ready && !disabled) onSubmit({ answer: value });
      }}
    >
      <Stack gap="sm" className={classes.answer}>
        <SegmentedControl
          aria-label="Kind of answer"
          data={[
            { value: "text", label: "Text" },
            { value: "yes-no", label: "Yes / no" },
            { value: "json", label: "JSON" },
          ]}
          value={mode}
          disabled={disabled}
          onChange={(next) => change({ mode: next })}
          style={{ alignSelf: "flex-start" }}
        />
        {mode === "text" ? (
          <>
            {options.length > 0 ? (
              <Group gap="xs" role="group" aria-label="Answers that the graph offers">
                {options.map((option) => (
                  <Button
                    key={option}
                    type="button"
                    size="xs"
                    variant={text === option ? "light" : "default"}
                    aria-pressed={text === option}
                    disabled={disabled}
                    onClick={() => type(option)}
                  >
                    {option}
                  </Button>
                ))}
              </Group>
            ) : null}
            <Textarea
              label="Answer"
              disabled={disabled}
              autosize
              minRows={3}
              maxRows={20}
              value={text}
              error={faults.length > 0 ? faults.join(" ") : null}
              onChange={(event) => type(event.currentTarget.value)}
            />
            {draft !== null && text === "" ? (
              <Button
                type="button"
                variant="subtle"
                size="xs"
                disabled={disabled}
                onClick={() => type(draft)}
                style={{ alignSelf: "flex-start" }}
              >
                Begin with the text above
              </Button>
            ) : null}
            {meant ? (
              <Group gap="xs">
                <Text size="sm" c="dimmed">
                  This is sent as a text, with quotes.
                </Text>
                <Button
                  type="button"
                  variant="default"
                  size="xs"
                  disabled={disabled}
                  onClick={() => change({ mode: "json", json: meant.value, broken: false })}
                >
                  Send {text.trim().length > 24 ? "it" : text.trim()} as JSON instead
                </Button>
              </Group>
            ) : null}
          </>
        ) : mode === "yes-no" ? (
          <Radio.Group
            label="Answer"
            description="The graph receives true or false"
            value={yes === null ? "" : String(yes)}
            error={faults.length > 0 ? faults.join(" ") : null}
            onChange={(next) => change({ yes: next === "true" })}
          >
            <Group gap="lg" py="xs">
              <Radio value="true" label="Yes" disabled={disabled} size="md" />
              <Radio value="false" label="No" disabled={disabled} size="md" />
            </Group>
          </Radio.Group>
        ) : (
          <JsonText
            label="Answer"
            description={json === undefined ? "Any JSON: a number, true, a list, an object" : undefined}
            disabled={disabled}
            initial={json}
            errors={faults}
            onChange={(next, wrong) => change(wrong ? { broken: true } : { json: next, broken: false })}
          />
        )}
        <Group>
          <Button
            type="submit"
            loading={pending}
            disabled={disabled || !ready}
            leftSection={<IconSend size={16} aria-hidden />}
          >
            Answer{mode === "yes-no" && yes !== null ? ` ${yes ? "yes" : "no"}` : ""}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
