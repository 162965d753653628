import { Button, Group, Popover, SegmentedControl, Stack, TextInput } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useState } from "react";
import { RANGE_HELP, RANGES, secondsOf } from "../format/time-range";

interface Props {
  value: string;
  onChange: (range: string) => void;
  label: string;
}

/** Selects a time range: a preset or a custom one. */
export function RangePicker({ value, onChange, label }: Props) {
  const [opened, { toggle, close }] = useDisclosure();
  const usual = RANGES.some((range) => range === value);
  const take = (range: string) => {
    onChange(range);
    close();
  };
  return (
    <Group gap="xs" wrap="nowrap" role="group" aria-label={label}>
      <SegmentedControl
        size="xs"
        aria-label={label}
        data={RANGES.map((range) => ({ value: range, label: range }))}
        value={usual ? value : ""}
        onChange={take}
      />
      <Popover opened={opened} onClose={close} onDismiss={close} position="bottom-end" shadow="md" trapFocus>
        <Popover.Target>
          <Button
            variant={usual ? "default" : "light"}
            size="xs"
            onClick={toggle}
            aria-label={usual ? "Custom range" : `${value}: custom range`}
          >
            {usual ? "Custom" : value}
          </Button>
        </Popover.Target>
        <Popover.Dropdown>{opened ? <Own initial={usual ? "" : value} onTake={take} /> : null}</Popover.Dropdown>
      </Popover>
    </Group>
  );
}

function Own({ initial, onTake }: { initial: string; onTake: (range: string) => void }) {
  const [text, setText] = useState(initial);
  const [refused, setRefused] = useState(false);
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        event.stopPropagation();
        if (secondsOf(text.trim()) === null) setRefused(true);
        else onTake(text.trim());
      }}
    >
      <Stack gap="xs" w={230}>
        <TextInput
          label="The last"
          placeholder="12h"
          description={refused ? undefined : `${RANGE_HELP}.`}
          error={refused ? `${RANGE_HELP}.` : null}
          value={text}
          data-autofocus
          onChange={(event) => {
            setText(event.currentTarget.value);
            setRefused(false);
          }}
        />
        <Button type="submit" size="xs">
          Show
        </Button>
      </Stack>
    </form>
  );
}
