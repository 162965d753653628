import { Alert, Text } from "@mantine/core";
import { IconPhotoOff } from "@tabler/icons-react";
import { useMemo, useState } from "react";
import { isLosslessNumber, stringify } from "../api/exact-json";
import type { QuestionOut } from "../api/schema";
import { JsonView } from "../ui/JsonView";
import { pictureUrl } from "../ui/picture-url";
import { optionsOf, partsOf, picturesIn, type QuestionPicture, toolCalls } from "./asks";
import classes from "./question.module.css";

/** What the graph shows with its question: texts, values and pictures. Tool calls stand where they are decided. */
export function QuestionContent({ question }: { question: QuestionOut }) {
  const pictures = useMemo(() => picturesIn(question.content), [question.content]);
  const parts = useMemo(() => {
    if (toolCalls(question) !== null) return [];
    const offers = optionsOf(question).length > 0;
    // What is shown as a picture, its region or buttons isn't repeated.
    return partsOf(question).filter(
      ({ name, value }) =>
        !pictures.some(({ url, box }) => value === url || (box !== null && stringify(value) === stringify(box))) &&
        !(offers && (name === "options" || name === "choices")),
    );
  }, [question, pictures]);
  if (parts.length === 0 && pictures.length === 0) return null;
  return (
    <>
      {pictures.length > 0 ? (
        <div className={classes.pictures}>
          {pictures.map((picture, index) => (
            <Shown key={picture.url} picture={picture} label={`Picture ${index + 1} of the question`} />
          ))}
        </div>
      ) : null}
      {parts.length === 1 && parts[0]?.name === null ? (
        <Value value={parts[0].value} label="the question" />
      ) : (
        <dl className={classes.parts}>
          {parts.map(({ name, value }) => (
            <div key={name}>
              <dt className="mono">{name}</dt>
              <dd>
                <Value value={value} label={name ?? "the question"} />
              </dd>
            </div>
          ))}
        </dl>
      )}
    </>
  );
}

/** A value as people read it: texts as they are, everything else as JSON. */
export function Value({ value, label }: { value: unknown; label: string }) {
  if (typeof value === "string") {
    if (value.startsWith("data:"))
      return <Text c="dimmed">A file of {value.length.toLocaleString("en")} characters</Text>;
    return (
      <pre className={classes.text} tabIndex={0} aria-label={label}>
        {value}
      </pre>
    );
  }
  const short = value === null || typeof value !== "object" || isLosslessNumber(value);
  if (short) return <span className="mono">{stringify(value)}</span>;
  return <JsonView value={value} label={label} />;
}

function Shown({ picture, label }: { picture: QuestionPicture; label: string }) {
  const [size, setSize] = useState<{ width: number; height: number } | null>(null);
  const [failed, setFailed] = useState(false);
  const address = pictureUrl(picture.url);
  if (address === null || failed) {
    return (
      <Alert color="gray" icon={<IconPhotoOff aria-hidden />} title="The picture can't be shown">
        Its bytes aren&apos;t stored with the run, its address no longer returns a picture, or you may not see it.
      </Alert>
    );
  }
  const [left, top, right, bottom] = picture.box ?? [];
  const share = (edge: number, whole: number) => `${Math.min(100, (edge / whole) * 100)}%`;
  return (
    <figure className={classes.picture}>
      <img
        src={address}
        alt={label}
        onError={() => setFailed(true)}
        onLoad={({ currentTarget: { naturalWidth, naturalHeight } }) =>
          setSize({ width: naturalWidth, height: naturalHeight })
        }
      />
      {size && left !== undefined && top !== undefined && right !== undefined && bottom !== undefined ? (
        <span
          className={classes.region}
          role="img"
          aria-label={`Region ${left}, ${top} to ${right}, ${bottom}`}
          style={{
            left: share(left, size.width),
            top: share(top, size.height),
            width: share(Math.max(0, right - left), size.width),
            height: share(Math.max(0, bottom - top), size.height),
          }}
        />
      ) : null}
    </figure>
  );
}
