import { Badge, Group, Text, Title } from "@mantine/core";
import { useMemo } from "react";
import { keysIn, parse, pathAt } from "./json-positions";
import { type Key, keysAt, type Path, type Schema } from "./json-schema";
import classes from "./KeyHelp.module.css";

interface Props {
  text: string;
  cursor: number;
  schema: Schema;
}

/** The keys that are allowed at the cursor, with their descriptions. */
export function KeyHelp({ text, cursor, schema }: Props) {
  const { place, keys, there } = useMemo(() => keysAround(text, cursor, schema), [text, cursor, schema]);
  return (
    <>
      <Title order={2} size="h3">
        {place.length === 0 ? "Keys of a definition" : `Keys of ${nameOf(place)}`}
      </Title>
      <Text size="xs" c="dimmed" mb="sm">
        Move the cursor to see the keys of another part. Ctrl-Space completes.
      </Text>
      <dl className={classes.keys}>
        {keys.map((key) => (
          <div key={key.name}>
            <dt>
              <Group gap={6}>
                <code className="mono">{key.name}</code>
                {key.required ? (
                  <Badge size="xs" color="petrol" variant="light">
                    required
                  </Badge>
                ) : null}
                {there.includes(key.name) ? (
                  <Badge size="xs" color="gray" variant="light">
                    set
                  </Badge>
                ) : null}
              </Group>
            </dt>
            <dd>
              <span className={classes.type}>{key.type}</span>
              <Words text={key.description} />
            </dd>
          </div>
        ))}
      </dl>
    </>
  );
}

/** Renders a text in which names are marked with backticks. */
function Words({ text }: { text: string | undefined }) {
  return text?.split("`").map((part, index) =>
    index % 2 === 1 ? (
      <code key={index} className="mono">
        {part}
      </code>
    ) : (
      part
    ),
  );
}

/** The nearest part around the cursor whose keys the schema defines. */
function keysAround(text: string, cursor: number, schema: Schema): { place: Path; keys: Key[]; there: string[] } {
  const tree = parse(text);
  const { path } = pathAt(text, cursor, tree);
  for (let end = path.length; end > 0; end -= 1) {
    const place = path.slice(0, end);
    const keys = keysAt(schema, place);
    if (keys.length > 0) return { place, keys, there: keysIn(text, place, tree) };
  }
  return { place: [], keys: keysAt(schema, []), there: keysIn(text, [], tree) };
}

function nameOf(path: Path): string {
  return path
    .map((step, index) => (typeof step === "number" ? `[${step}]` : `${index > 0 ? "." : ""}${step}`))
    .join("");
}
