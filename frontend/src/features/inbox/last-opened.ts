/** The question that was opened from the list, so that the list can focus it again. */
let opened: string | null = null;

export const lastOpened = {
  set: (id: string) => {
    opened = id;
  },
  take: () => {
    const id = opened;
    opened = null;
    return id;
  },
};
