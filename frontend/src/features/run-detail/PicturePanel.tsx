import { Alert, Group, Paper, ScrollArea, SegmentedControl, Stack, Switch, Text } from "@mantine/core";
import { IconPhotoOff } from "@tabler/icons-react";
import { useState } from "react";
import { percent } from "@/shared/format/amounts";
import { pictureUrl } from "@/shared/ui/picture-url";
import classes from "./PicturePanel.module.css";
import type { Picture } from "./pictures";

/** The picture as the agents saw it, with the recognised text where it was found. */
export function PicturePanel({ pictures }: { pictures: Picture[] }) {
  const [index, setIndex] = useState(0);
  const picture = pictures[index] ?? pictures[0];
  if (!picture) return null;
  return (
    <Stack gap="sm">
      {pictures.length > 1 ? (
        <SegmentedControl
          aria-label="Agent"
          data={pictures.map((one, at) => ({ value: String(at), label: one.agent ?? "agent" }))}
          value={String(index)}
          onChange={(value) => setIndex(Number(value))}
          style={{ alignSelf: "flex-start" }}
        />
      ) : null}
      <Boxes key={index} picture={picture} />
    </Stack>
  );
}

function Boxes({ picture: { imageUrl, width, height, regions } }: { picture: Picture }) {
  const [chosen, setChosen] = useState<number | null>(null);
  const [boxes, setBoxes] = useState(true);
  const [failed, setFailed] = useState(false);
  const address = pictureUrl(imageUrl);
  return (
    <Paper className={classes.panel}>
      <div className={classes.stage}>
        {address === null || failed ? (
          <Alert color="gray" icon={<IconPhotoOff aria-hidden />} title="The picture can't be shown">
            {address === null
              ? "Its bytes aren't stored with the run, or this page may not load its URL. The recognised text is shown beside it."
              : "Its URL no longer returns a picture, or you may not see it. The recognised text is shown beside it."}
          </Alert>
        ) : null}
        <svg
          viewBox={`0 0 ${width} ${height}`}
          className={classes.picture}
          role="img"
          aria-label="The picture with the recognised text"
        >
          <rect width={width} height={height} className={classes.ground} />
          {address !== null && !failed ? (
            <image href={address} width={width} height={height} onError={() => setFailed(true)} />
          ) : null}
          {boxes
            ? regions.map(({ box: [left, top, right, bottom], text }, at) => (
                <rect
                  key={at}
                  x={left}
                  y={top}
                  width={Math.max(0, right - left)}
                  height={Math.max(0, bottom - top)}
                  className={classes.box}
                  data-chosen={chosen === at || undefined}
                  onPointerEnter={() => setChosen(at)}
                  onPointerLeave={() => setChosen(null)}
                >
                  <title>{text}</title>
                </rect>
              ))
            : null}
        </svg>
        <Text size="xs" c="dimmed" className="tabular">
          {width} × {height} pixels
        </Text>
      </div>
      <div className={classes.side}>
        <Group justify="space-between" mb="xs">
          <Text fw={600}>Text by OCR</Text>
          {regions.length > 0 ? (
            <Switch
              size="xs"
              label="Boxes"
              checked={boxes}
              onChange={(event) => setBoxes(event.currentTarget.checked)}
            />
          ) : null}
        </Group>
        {regions.length === 0 ? (
          <Text c="dimmed" size="sm">
            No text was recognised: there is none, or a vision model answered, which reports no positions.
          </Text>
        ) : (
          <ScrollArea.Autosize mah={520} type="auto" offsetScrollbars="y">
            <ol className={classes.lines} aria-label="Text by OCR">
              {regions.map((region, at) => (
                <li
                  key={at}
                  data-chosen={chosen === at || undefined}
                  onPointerEnter={() => setChosen(at)}
                  onPointerLeave={() => setChosen(null)}
                >
                  <span>{region.text}</span>
                  <Text component="span" size="xs" c="dimmed" className="tabular">
                    {percent(region.confidence)}
                  </Text>
                </li>
              ))}
            </ol>
          </ScrollArea.Autosize>
        )}
      </div>
    </Paper>
  );
}
