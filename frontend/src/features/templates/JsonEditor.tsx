import { setDiagnostics } from "@codemirror/lint";
import { EditorSelection } from "@codemirror/state";
import { EditorView } from "@codemirror/view";
import { type Ref, useEffect, useImperativeHandle, useRef } from "react";
import { diagnosticsOf, placeOf, setup } from "./editor-setup";
import classes from "./JsonEditor.module.css";
import type { Fault, Schema } from "./json-schema";

export interface EditorHandle {
  /** Moves the cursor to an error. */
  goTo: (fault: Fault) => void;
}

interface Props {
  /** The initial text; afterwards the editor owns it. */
  initial: string;
  onChange: (text: string) => void;
  /** Called with the cursor's position. */
  onCursor: (position: number) => void;
  schema: Schema;
  faults: readonly Fault[];
  label: string;
  ref?: Ref<EditorHandle>;
}

/** A JSON editor that knows the schema; loaded separately, because it is large. */
export function JsonEditor({ initial, onChange, onCursor, schema, faults, label, ref }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView | null>(null);
  const told = useRef({ initial, onChange, onCursor, schema, label });
  useEffect(() => {
    told.current = { ...told.current, onChange, onCursor, schema };
  });

  useEffect(() => {
    if (!box.current) return;
    const made = new EditorView({
      doc: told.current.initial,
      parent: box.current,
      extensions: [
        setup(() => told.current.schema, told.current.label),
        EditorView.updateListener.of((update) => {
          if (update.docChanged) told.current.onChange(update.state.doc.toString());
          if (update.docChanged || update.selectionSet) told.current.onCursor(update.state.selection.main.head);
        }),
      ],
    });
    view.current = made;
    return () => {
      made.destroy();
      view.current = null;
    };
  }, []);

  useEffect(() => {
    const here = view.current;
    if (here) here.dispatch(setDiagnostics(here.state, diagnosticsOf(here.state.doc.toString(), faults)));
  }, [faults]);

  useImperativeHandle(ref, () => ({
    goTo: (fault) => {
      const here = view.current;
      if (!here) return;
      const { from } = placeOf(here.state.doc.toString(), fault);
      here.dispatch({
        selection: EditorSelection.cursor(from),
        effects: EditorView.scrollIntoView(from, { y: "center" }),
      });
      here.focus();
    },
  }));

  return <div ref={box} className={classes.editor} data-invalid={faults.length > 0 || undefined} />;
}
