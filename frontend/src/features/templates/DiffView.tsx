import { Button, Group, Paper, ScrollArea, Text, Title } from "@mantine/core";
import { IconArrowsExchange, IconX } from "@tabler/icons-react";
import { Fragment, useMemo, useState } from "react";
import { useMediaQuery } from "@mantine/hooks";
import type { VersionOut } from "@/shared/api/schema";
import { pretty } from "./definition";
import { diff, type DiffRow } from "./diff";
import classes from "./DiffView.module.css";

/** Unchanged lines shown around each change. */
const AROUND = 3;

interface Props {
  left: VersionOut;
  right: VersionOut;
  onClose: () => void;
  onSwap: () => void;
}

/** Two versions side by side. */
export function DiffView({ left, right, onClose, onSwap }: Props) {
  const rows = useMemo(() => diff(pretty(left.definition), pretty(right.definition)), [left, right]);
  const [whole, setWhole] = useState(false);
  const narrow = useMediaQuery("(max-width: 48em)", false, { getInitialValueInEffect: false });
  const taken = rows.filter((row) => !row.same && row.left).length;
  const added = rows.filter((row) => !row.same && row.right).length;
  const title = `Version ${left.version} compared with ${right.version}`;
  return (
    <Paper component="section" aria-labelledby="difference" style={{ overflow: "hidden" }}>
      <Group justify="space-between" px="md" py="sm">
        <div>
          <Title order={2} size="h3" id="difference">
            {title}
          </Title>
          <Text size="xs" c="dimmed">
            {taken + added === 0
              ? "The versions are identical."
              : `${taken} ${taken === 1 ? "line" : "lines"} removed, ${added} added.`}
          </Text>
        </div>
        <Group gap="xs">
          <Button size="xs" variant="default" onClick={() => setWhole(!whole)} aria-pressed={whole}>
            All lines
          </Button>
          <Button
            size="xs"
            variant="default"
            leftSection={<IconArrowsExchange size={14} aria-hidden />}
            onClick={onSwap}
          >
            Swap
          </Button>
          <Button
            size="xs"
            variant="subtle"
            color="gray"
            leftSection={<IconX size={14} aria-hidden />}
            onClick={onClose}
          >
            Close
          </Button>
        </Group>
      </Group>
      <ScrollArea.Autosize mah={560} type="auto" viewportProps={{ tabIndex: 0, role: "group", "aria-label": title }}>
        <table className={classes.diff} data-narrow={narrow || undefined}>
          <colgroup>
            {(narrow ? [left] : [left, right]).map(({ version }) => (
              <Fragment key={version}>
                <col className={classes.number} />
                <col />
              </Fragment>
            ))}
          </colgroup>
          <thead hidden={narrow}>
            <tr>
              <th colSpan={2} scope="col">
                Version {left.version}
              </th>
              <th colSpan={2} scope="col">
                Version {right.version}
              </th>
            </tr>
          </thead>
          <tbody>
            {(whole ? [rows] : parts(rows)).map((part, index) => (
              <Fragment key={part[0]?.left?.number ?? `right-${part[0]?.right?.number ?? index}`}>
                {index > 0 ? (
                  <tr className={classes.gap}>
                    <td colSpan={narrow ? 2 : 4}>…</td>
                  </tr>
                ) : null}
                {narrow
                  ? oneBelowTheOther(part).map(({ side, kind }) => (
                      <tr key={`${kind}/${side.number}`}>
                        <Side side={side} kind={kind} />
                      </tr>
                    ))
                  : part.map((row) => (
                      <tr key={`${row.left?.number ?? ""}/${row.right?.number ?? ""}`}>
                        <Side side={row.left} kind={row.same ? "same" : "removed"} />
                        <Side side={row.right} kind={row.same ? "same" : "added"} />
                      </tr>
                    ))}
              </Fragment>
            ))}
          </tbody>
        </table>
      </ScrollArea.Autosize>
    </Paper>
  );
}

type Kind = "same" | "removed" | "added";

function Side({ side, kind }: { side: DiffRow["left"]; kind: Kind }) {
  if (side === null) return <td colSpan={2} className={classes.none} />;
  const sign = { same: " ", removed: "−", added: "+" }[kind];
  return (
    <>
      <td className={classes.number} data-kind={kind}>
        {side.number}
      </td>
      <td className={classes.line} data-kind={kind}>
        <span aria-hidden>{sign} </span>
        {kind === "same" ? null : <span className={classes.spoken}>{kind}: </span>}
        {side.text}
      </td>
    </>
  );
}

interface Line {
  side: NonNullable<DiffRow["left"]>;
  kind: Kind;
}

/** Both sides in one column: for each change, first the removed lines, then the added ones. */
function oneBelowTheOther(rows: DiffRow[]): Line[] {
  const lines: Line[] = [];
  let added: Line[] = [];
  for (const row of rows) {
    if (row.same) {
      lines.push(...added);
      added = [];
      if (row.right) lines.push({ side: row.right, kind: "same" });
      continue;
    }
    if (row.left) lines.push({ side: row.left, kind: "removed" });
    if (row.right) added.push({ side: row.right, kind: "added" });
  }
  return [...lines, ...added];
}

/** A change with a few lines around it. */
function parts(rows: DiffRow[]): DiffRow[][] {
  const near = rows.map((_, index) =>
    rows.slice(Math.max(0, index - AROUND), index + AROUND + 1).some((row) => !row.same),
  );
  const found: DiffRow[][] = [];
  rows.forEach((row, index) => {
    if (!near[index]) return;
    if (index === 0 || !near[index - 1]) found.push([]);
    found.at(-1)?.push(row);
  });
  return found;
}
