/**
 * Stands in for `@rjsf/validator-ajv8`, which only the form library's test helpers import. It compiles schemas to code,
 * which the content security policy forbids. `validator.ts` validates the forms.
 */
export default undefined;
