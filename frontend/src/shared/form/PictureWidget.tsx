import { Button, CloseButton, FileButton, Group, Input, Loader, Text, TextInput } from "@mantine/core";
import { IconPhotoPlus, IconPhotoSearch, IconUpload } from "@tabler/icons-react";
import { useMutation } from "@tanstack/react-query";
import type { WidgetProps } from "@rjsf/utils";
import { type DragEvent, useEffect, useEffectEvent, useState } from "react";
import { answer, api } from "@/shared/api/client";
import { asProblem } from "@/shared/api/problem";
import { pictureUrl } from "@/shared/ui/picture-url";
import classes from "./PictureWidget.module.css";

const EXAMPLE = "sample://invoice";

/** A picture: dropped, pasted, chosen, the example, or a URL. Files are uploaded immediately. */
export function PictureWidget({ id, label, required, value, rawErrors, onChange, disabled }: WidgetProps) {
  const [over, setOver] = useState(false);
  const [unseen, setUnseen] = useState<string | null>(null);
  const upload = useMutation({
    mutationFn: (file: File) => {
      const form = new FormData();
      form.append("file", file);
      // The generated types declare files as text; the form data is what is sent.
      return answer(api.POST("/images", { body: { file: "" }, bodySerializer: () => form }));
    },
    onSuccess: ({ image_url }) => onChange(image_url),
  });

  const take = (file: File | null | undefined) => {
    if (file) upload.mutate(file);
  };
  const onPaste = useEffectEvent((event: ClipboardEvent) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (file && !disabled) {
      event.preventDefault();
      take(file);
    }
  });
  useEffect(() => {
    const listener = (event: ClipboardEvent) => onPaste(event);
    window.addEventListener("paste", listener);
    return () => window.removeEventListener("paste", listener);
  }, []);
  const onDrop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    take(event.dataTransfer.files[0]);
  };

  const text = typeof value === "string" ? value : "";
  const shown = pictureUrl(text);
  const errors = upload.error ? [problemText(upload.error)] : (rawErrors ?? []);
  return (
    <Input.Wrapper
      label={label}
      required={required}
      error={errors.length > 0 ? errors.join(" ") : null}
      labelElement="div"
    >
      {/* eslint-disable-next-line jsx-a11y/no-noninteractive-element-interactions -- a place to drop things on */}
      <div
        // The buttons do everything that dragging does.
        role="group"
        aria-label={label}
        className={classes.zone}
        data-over={over || undefined}
        data-invalid={errors.length > 0 || undefined}
        onDragOver={(event) => {
          event.preventDefault();
          setOver(true);
        }}
        onDragLeave={() => setOver(false)}
        onDrop={onDrop}
      >
        {upload.isPending ? (
          <Group gap="sm" role="status">
            <Loader size="sm" /> <Text>Uploading {upload.variables.name}</Text>
          </Group>
        ) : text && shown && unseen !== text ? (
          <div className={classes.preview}>
            <img src={shown} alt="Preview of the input" onError={() => setUnseen(text)} />
            <CloseButton className={classes.remove} aria-label="Remove picture" onClick={() => onChange(undefined)} />
          </div>
        ) : (
          <>
            <IconPhotoPlus size={28} stroke={1.4} aria-hidden className={classes.icon} />
            <Text c="dimmed">
              {text ? "No preview for this URL; the backend fetches it." : "Drop or paste a picture here."}
            </Text>
          </>
        )}
        <Group gap="xs" justify="center">
          <FileButton onChange={take} accept="image/*" disabled={disabled === true || upload.isPending}>
            {(props) => (
              <Button
                {...props}
                variant="default"
                size="xs"
                disabled={disabled === true || upload.isPending}
                leftSection={<IconUpload size={14} aria-hidden />}
              >
                Choose file
              </Button>
            )}
          </FileButton>
          {text === EXAMPLE ? null : (
            <Button
              variant="subtle"
              size="xs"
              disabled={disabled}
              leftSection={<IconPhotoSearch size={14} aria-hidden />}
              onClick={() => {
                upload.reset();
                onChange(EXAMPLE);
              }}
            >
              Use example
            </Button>
          )}
        </Group>
      </div>
      <TextInput
        id={id}
        mt="xs"
        aria-label={`${label} URL`}
        placeholder="or a URL: https://…"
        value={text}
        disabled={disabled}
        onChange={(event) => {
          upload.reset();
          onChange(event.currentTarget.value || undefined);
        }}
      />
    </Input.Wrapper>
  );
}

function problemText(error: Error): string {
  const problem = asProblem(error);
  return problem.faults[0]?.detail ?? problem.detail;
}
