/** The id of a question's element on its run's page. */
export function questionElement(questionId: string): string {
  return `question-${questionId}`;
}

/** Moves to a question on this page, and opens it. */
export function showQuestion(questionId: string): void {
  const element = document.getElementById(questionElement(questionId));
  const control = element?.querySelector<HTMLElement>("button[aria-expanded]");
  if (control?.getAttribute("aria-expanded") === "false") control.click();
  element?.scrollIntoView({ block: "start" });
  control?.focus({ preventScroll: true });
}
