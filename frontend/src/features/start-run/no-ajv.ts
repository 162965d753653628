/**
 * Stands in for `@rjsf/validator-ajv8`, which the form library's helpers for tests import and nothing here uses: it makes
 * code of schemas, and the content security policy forbids that. `validator.ts` checks the forms.
 */
export default undefined;
