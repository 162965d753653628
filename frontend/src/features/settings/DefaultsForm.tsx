import { Button, Group, Input, NumberInput, Paper, SimpleGrid, Stack, Text, TextInput, Title } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useState } from "react";
import { asProblem } from "@/shared/api/problem";
import type { PreferencesOut } from "@/shared/api/schema";
import { lastRange } from "@/shared/format/time-range";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { RangePicker } from "@/shared/ui/RangePicker";
import { bodyOf } from "./preferences";
import { useSavePreferences } from "./useSavePreferences";

const FIELDS = [
  "/default_model",
  "/budget/max_cost_usd",
  "/budget/max_tokens",
  "/budget/max_steps",
  "/dashboard_range",
];

/** Defaults for runs and for the dashboard. */
export function DefaultsForm({ known }: { known: PreferencesOut }) {
  const [model, setModel] = useState(known.default_model ?? "");
  const [maxCost, setMaxCost] = useState(known.budget?.max_cost_usd ?? null);
  const [maxTokens, setMaxTokens] = useState(known.budget?.max_tokens ?? null);
  const [maxSteps, setMaxSteps] = useState(known.budget?.max_steps ?? null);
  const [range, setRange] = useState(known.dashboard_range);
  const save = useSavePreferences();
  const problem = save.error ? asProblem(save.error) : null;
  const fault = (pointer: string) => problem?.faults.find((one) => one.pointer === pointer)?.detail;
  const above =
    problem !== null && (problem.faults.length === 0 || !problem.faults.every((one) => FIELDS.includes(one.pointer)));

  const submit = () => {
    const budget = {
      ...(maxCost === null ? {} : { max_cost_usd: maxCost }),
      ...(maxTokens === null ? {} : { max_tokens: maxTokens }),
      ...(maxSteps === null ? {} : { max_steps: maxSteps }),
    };
    save.mutate(
      (now) => ({
        ...bodyOf(now),
        default_model: model.trim() || null,
        budget: Object.keys(budget).length > 0 ? budget : null,
        dashboard_range: range,
      }),
      { onSuccess: () => notifications.show({ message: "Defaults saved.", color: "green" }) },
    );
  };

  return (
    <Paper component="section" aria-labelledby="defaults" p="lg">
      <Title order={2} id="defaults">
        Defaults
      </Title>
      <Text c="dimmed" mb="md">
        Used for runs that are started for you through this page or the API, unless the request says otherwise.
      </Text>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          submit();
        }}
      >
        <Stack gap="md">
          {above ? <ProblemAlert error={problem} without={(pointer) => FIELDS.includes(pointer)} /> : null}
          <TextInput
            label="Model"
            description="For agents whose task names no model. If empty, the service's default applies"
            placeholder="openai:gpt-4.1-mini"
            value={model}
            error={fault("/default_model")}
            onChange={(event) => setModel(event.currentTarget.value)}
            maw={420}
          />
          <SimpleGrid cols={{ base: 1, sm: 3 }}>
            <NumberInput
              label="Cost limit"
              description="US dollars per run"
              placeholder="no limit"
              prefix="$"
              min={0}
              decimalScale={2}
              fixedDecimalScale
              value={maxCost ?? ""}
              error={fault("/budget/max_cost_usd")}
              onChange={(value) => setMaxCost(numberOf(value))}
            />
            <NumberInput
              label="Token limit"
              description="Input and output tokens per run"
              placeholder="no limit"
              suffix=" tokens"
              min={0}
              allowDecimal={false}
              thousandSeparator=","
              value={maxTokens ?? ""}
              error={fault("/budget/max_tokens")}
              onChange={(value) => setMaxTokens(numberOf(value))}
            />
            <NumberInput
              label="Step limit"
              description="Node executions per run"
              placeholder="no limit"
              suffix=" steps"
              min={0}
              allowDecimal={false}
              thousandSeparator=","
              value={maxSteps ?? ""}
              error={fault("/budget/max_steps")}
              onChange={(value) => setMaxSteps(numberOf(value))}
            />
          </SimpleGrid>
          <Input.Wrapper
            label="Dashboard"
            description={`Initially shows ${lastRange(range)}.`}
            error={fault("/dashboard_range")}
            labelElement="div"
          >
            <Group mt={6}>
              <RangePicker label="Dashboard time range" value={range} onChange={setRange} />
            </Group>
          </Input.Wrapper>
          <Group>
            <Button type="submit" loading={save.isPending}>
              Save
            </Button>
          </Group>
        </Stack>
      </form>
    </Paper>
  );
}

function numberOf(value: string | number): number | null {
  return typeof value === "number" ? value : null;
}
